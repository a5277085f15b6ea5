"""Show what runs on a timetable: each schedule, its last run, and its next."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from db.schedules import Made, Schedules, Summary
from jobs import Job, Schedule, registry
from jobs._registry import did_you_mean
from worker.cli._connections import open_connections
from worker.cli._options import UsageError, command_line
from worker.cli._times import short_span, short_time
from worker.maintenance.cron import checked_schedules, upcoming
from worker.tables import add_row, cell

app = command_line()

PREVIEW_OF_ONE = 20
PAST_OF_ONE = 20

Name = Annotated[str | None, typer.Argument(help="Only this schedule, with its past.")]
Count = Annotated[
    int | None, typer.Option("--next", min=1, max=1_000, help="Show so many of the next runs.")
]


@app.command()
def schedules(name: Name = None, count: Count = None) -> None:
    """Show each schedule with its last run and its next."""
    declared = [pair for pair in checked_schedules(registry()) if name in (None, pair[1].name)]
    if not declared:
        known = [schedule.name for _, schedule in checked_schedules(registry())]
        raise UsageError(
            f"there is no schedule {name!r}{did_you_mean(str(name), known)}; "
            f"there are: {', '.join(known)}"
        )
    names = [schedule.name for _, schedule in declared]
    now, summaries, made = asyncio.run(_past(names, 1 if name is None else PAST_OF_ONE))
    console = Console()
    if name is None:
        console.print(_overview(declared, made, now.astimezone()))
        for gone in sorted(set(summaries) - set(names)):
            console.print(cell(f"{gone}: no job here declares it any more"))
    else:
        console.print(_policy(declared, summaries))
        console.print(_past_runs(made) if any(made.values()) else "no runs yet")
        count = count or PREVIEW_OF_ONE
    if count is not None:
        console.print(_next_runs(declared, now, count))
    elif name is None:
        console.print("schedules NAME: its past and its policy; --next 20: the next runs of all")


async def _past(
    names: list[str], count: int
) -> tuple[datetime, dict[str, Summary], dict[str, list[Made]]]:
    async with open_connections("schedules") as opened, opened.sessions() as session:
        past = Schedules(session)
        made = {name: await past.recent(name, count) for name in names}
        return await past.clock(), await past.summaries(), made


def _overview(
    declared: list[tuple[Job, Schedule]], made: dict[str, list[Made]], now: datetime
) -> Table:
    table = Table("schedule", "when", "next", "in", "last", box=None, pad_edge=False)
    for _, schedule in declared:
        following = next(iter(upcoming(schedule, now, 1)), None)
        last = made[schedule.name][0] if made[schedule.name] else None
        add_row(
            table,
            schedule.name,
            str(schedule.when),
            short_time(following, now) if following else "never",
            short_span(following - now) if following else "",
            f"{short_time(last.fire_at, now)} {last.state}" if last else "not yet",
            style={"dead": "red", "queued": "cyan"}.get(last.state, "") if last else "",
        )
    return table


def _policy(declared: list[tuple[Job, Schedule]], summaries: dict[str, Summary]) -> Table:
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
