"""Show what runs on a timetable: each schedule, its last runs, and the next twenty of all."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from db.schedules import Made, Schedules, Summary
from jobs import Job, Schedule, registry
from worker.cli._connections import open_connections
from worker.cli._options import UsageError, command_line
from worker.maintenance.cron import checked_schedules, upcoming
from worker.maintenance.relay import SWEEP_PAUSE_S
from worker.tables import add_row, cell

app = command_line()

PREVIEW = 20
PAST = 5
PAST_OF_ONE = 20

Name = Annotated[str | None, typer.Argument(help="Only this schedule, with more of its past.")]
Count = Annotated[int, typer.Option("--next", min=1, max=1_000, help="Runs to preview.")]


@app.command()
def schedules(name: Name = None, count: Count = PREVIEW) -> None:
    """Show each schedule, its last runs, and the next runs of all."""
    declared = [pair for pair in checked_schedules(registry()) if name in (None, pair[1].name)]
    if not declared:
        known = ", ".join(schedule.name for _, schedule in checked_schedules(registry()))
        raise UsageError(f"there is no schedule {name!r}; there are: {known}")
    past = PAST if name is None else PAST_OF_ONE
    now, summaries, made = asyncio.run(_past([schedule.name for _, schedule in declared], past))
    console = Console()
    console.print(_timetable(declared, summaries))
    console.print(_past_runs(made) if any(made.values()) else "no runs yet")
    console.print(_next_runs(declared, now, count))
    if name is None:
        console.print(
            f"relay sweep: every {SWEEP_PAUSE_S:g} s, by every worker, beside the timetable"
        )
        for gone in sorted(set(summaries) - {schedule.name for _, schedule in declared}):
            console.print(cell(f"{gone}: no job here declares it any more"))


async def _past(
    names: list[str], count: int
) -> tuple[datetime, dict[str, Summary], dict[str, list[Made]]]:
    async with open_connections("schedules") as opened, opened.sessions() as session:
        past = Schedules(session)
        made = {name: await past.recent(name, count) for name in names}
        return await past.clock(), await past.summaries(), made


def _timetable(declared: list[tuple[Job, Schedule]], summaries: dict[str, Summary]) -> Table:
    table = Table("schedule", "job", "when", "missed runs", "dropped")
    for job, schedule in declared:
        summary = summaries.get(schedule.name)
        window = f", {_in_words(schedule.window)} back" if schedule.window is not None else ""
        add_row(
            table,
            schedule.name,
            job.kind,
            str(schedule.when),
            f"{schedule.missed}{window}",
            f"{summary.missed:,}" if summary else "not begun: no worker has seen it",
        )
    return table


def _past_runs(made: dict[str, list[Made]]) -> Table:
    table = Table("past runs (UTC)", "schedule", "made after", "state")
    table.add_column("job", overflow="fold")  # an id that is cut short is of no use
    runs = sorted((one for runs in made.values() for one in runs), key=lambda one: one.fire_at)
    for one in runs:
        late_s = (one.created_at - one.fire_at).total_seconds()
        style = {"dead": "red", "queued": "yellow"}.get(one.state, "")
        add_row(
            table,
            _utc(one.fire_at),
            one.schedule,
            f"{late_s:,.1f} s",
            one.state,
            str(one.job_id),
            style=style,
        )
    return table


def _next_runs(declared: list[tuple[Job, Schedule]], now: datetime, count: int) -> Table:
    table = Table("next runs (UTC)", "in its own zone", "schedule")
    runs = sorted(
        (at, schedule.name, _shown(schedule, at))
        for _, schedule in declared
        for at in upcoming(schedule, now, count)
    )
    for at, name, shown in runs[:count]:
        table.add_row(_utc(at), shown, name)
    return table


def _shown(schedule: Schedule, at: datetime) -> str:
    """Return a time as the schedule's own zone shows it."""
    return f"{at.astimezone(schedule.when.zone()):%a %Y-%m-%d %H:%M:%S %Z}"


def _utc(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def _in_words(span: timedelta) -> str:
    """Return a span in words: in days where it is whole days."""
    days, rest = divmod(span, timedelta(days=1))
    return str(span) if rest else f"{days} day{'s' if days != 1 else ''}"
