"""List and show jobs, retry dead ones, cancel queued ones; batches."""

import asyncio
import sys
from collections.abc import Coroutine
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import typer
from rich.console import Console
from sqlalchemy.exc import DBAPIError

from db.errors import Trouble, diagnose
from db.operations import (
    PAGE_MAX,
    Filter,
    Position,
    Whole,
    count_jobs,
    family_of,
    find_job,
    list_jobs,
)
from db.store import Store
from jobs import registry
from jobs._registry import did_you_mean
from jobs._services import open_dry_services
from jobs._wire import job_id_of
from worker.cli._connections import Connections, open_connections
from worker.cli._options import (
    UsageError,
    command_line,
    confirm,
    operator,
    parse_since,
)
from worker.cli.jobs import batch as batches
from worker.cli.jobs.tables import (
    cursor_of,
    list_as_json,
    list_as_tsv,
    read_cursor,
    show_list,
    show_whole,
    whole_as_dict,
)
from worker.desk.acts.cancel import Canceller
from worker.desk.acts.retry import Replayer
from worker.errors import TellerError, visible
from worker.execution.dry_run import dry_run
from worker.tables import json_text

app = command_line(help=__doc__, no_args_is_help=True)

PIPED_WIDTH: Final = 180
NOT_DONE: Final = 1
PAGE: Final = 50
CONNECTIONS: Final = 2
DRY_RUNS_MAX: Final = 100
"""Jobs that one filter dry-runs: each takes locks like a run that counts."""

StateName = Literal["queued", "completed", "rejected", "dead", "cancelled"]

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Job ids, or arq's own.")]
State = Annotated[StateName | None, typer.Option(help="Only jobs in this state.")]
Kind = Annotated[str | None, typer.Option(help="Only jobs of this kind.")]
Queue = Annotated[str | None, typer.Option(help="Only jobs of this queue.")]
Since = Annotated[
    str | None, typer.Option(help="Only jobs accepted since: 30m, 2h, 7d, or 2026-01-31T09:00.")
]
Error = Annotated[
    str | None, typer.Option(help="Only jobs with this error: its class name, or its SQLSTATE.")
]
Limit = Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Jobs on a page.")]
After = Annotated[str | None, typer.Option(help="Continue after the previous page.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Payload = Annotated[
    bool, typer.Option("--payload", help="Print payload and result too: they may be personal.")
]
All = Annotated[bool, typer.Option("--all", help="All of them, instead of a filter.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Run, roll back, and show the outcome.")]
Reason = Annotated[str, typer.Option(help="Kept with the job, and returned to who waits for it.")]


@app.command("list")
def list_(  # noqa: PLR0913 - the options of a command line
    *,
    state: State = None,
    kind: Kind = None,
    queue: Queue = None,
    since: Since = None,
    error: Error = None,
    limit: Limit = PAGE,
    after: After = None,
    json: Json = False,
) -> None:
    """List jobs, newest first, a page at a time."""
    which = Filter(state, kind, queue, _since(since), error)
    _run(_list(which, _position(after), limit, json=json))


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    payload: Payload = False,
    json: Json = False,
) -> None:
    """Show one job: its times, its errors, its replays, and its family.

    A family is what a job has enqueued while it ran, and what enqueued it.
    """
    _run(_show(job_id, payload=payload, json=json))


@app.command()
def retry(  # noqa: PLR0913 - the options of a command line
    ids: Ids = None,
    *,
    kind: Kind = None,
    queue: Queue = None,
    since: Since = None,
    error: Error = None,
    every: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Run dead jobs again, by id or by filter.

    Their attempts start anew, their errors are kept. With --dry-run the handlers run now, in
    transactions that are rolled back, and nothing changes.
    """
    which = _choice(ids, Filter("dead", kind, queue, _since(since), error), every=every)
    if dry_run:
        _run(_dry_run(ids, which))
    else:
        _run(_retry(ids, which, yes=yes))


@app.command()
def cancel(  # noqa: PLR0913 - the options of a command line
    ids: Ids = None,
    *,
    kind: Kind = None,
    queue: Queue = None,
    since: Since = None,
    error: Error = None,
    every: All = False,
    reason: Reason = "cancelled by an operator",
    yes: Yes = False,
) -> None:
    """Cancel jobs that have not taken effect.

    A job that runs at this moment is stopped.
    """
    which = _choice(ids, Filter("queued", kind, queue, _since(since), error), every=every)
    _run(_cancel(ids, which, reason, yes=yes))


@app.command()
def batch(  # noqa: PLR0913 - the options of a command line
    batch_id: Annotated[UUID, typer.Argument(metavar="ID")],
    *,
    wait: Annotated[
        bool, typer.Option("--wait", help="Show its progress until it is over.")
    ] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel what has not ended.")] = False,
    reason: Reason = "cancelled by an operator",
    json: Json = False,
    yes: Yes = False,
) -> None:
    """Show a batch, wait for its end, or cancel the whole of it."""
    if wait and cancel:
        raise UsageError("give --wait or --cancel, not both")
    _run(_batch(batch_id, reason if cancel else None, wait=wait, json=json, yes=yes))


async def _batch(
    batch_id: UUID, cancel_reason: str | None, *, wait: bool, json: bool, yes: bool
) -> int:
    async with open_connections("jobs", pool_size=CONNECTIONS) as opened:
        one = batches.batch_of(opened, batch_id)
        status = await batches.status_of(one)
        if cancel_reason is not None:
            if not yes:
                confirm(f"cancel {status.queued:,} queued jobs of this batch?")
            status = await one.cancel(cancel_reason)
        elif wait:
            status = await batches.watch(one)
    if json:
        typer.echo(json_text(batches.as_dict(status)))
    else:
        typer.echo(batches.told(status))
    unwanted = status.queued > 0 if cancel_reason is not None else status.state == "cancelled"
    return NOT_DONE if unwanted else 0


async def _list(which: Filter, before: Position | None, limit: int, *, json: bool) -> int:
    async with open_connections("jobs") as opened, opened.sessions() as session:
        lines = list(await list_jobs(session, which, before=before, limit=limit))
    if json:
        typer.echo(list_as_json(lines), nl=bool(lines))
    elif not lines:
        typer.echo(_why_none(which), err=True)
    elif sys.stdout.isatty():
        show_list(lines, Console(), datetime.now().astimezone())
    else:
        typer.echo(list_as_tsv(lines))
    if len(lines) == limit:
        typer.echo(f"more: --after {cursor_of(lines[-1])}", err=True)
    return 0


async def _show(name: str, *, payload: bool, json: bool) -> int:
    async with open_connections("jobs") as opened:
        (job,) = await _find(opened, [name])
        async with opened.sessions() as session:
            family = await family_of(session, job.id)
    if json:
        typer.echo(json_text(whole_as_dict(job, family, payload=payload), indented=True))
    else:
        show_whole(job, family, _console(), payload=payload)
    return 0


async def _retry(names: list[str] | None, which: Filter, *, yes: bool) -> int:
    async with open_connections("jobs", pool_size=CONNECTIONS) as opened:
        replayer = Replayer(opened.sessions, opened.redis, opened.settings.queue_name, operator())
        if names:
            jobs = await _find(opened, names)
            done = await replayer.these([job.id for job in jobs])
            return _report(jobs, done, "put back", "only dead jobs can be retried")
        await _confirm(opened, which, "retry", yes=yes)
        total = 0
        async for count in replayer.all_of(which):
            total += count
        typer.echo(f"{total:,} jobs put back")
    return 0


async def _dry_run(names: list[str] | None, which: Filter) -> int:
    async with (
        open_connections("jobs", pool_size=CONNECTIONS) as opened,
        open_dry_services() as services,
    ):
        if not names:
            async with opened.sessions() as session:
                lines = await list_jobs(session, which, before=None, limit=DRY_RUNS_MAX)
            names = [str(line.id) for line in lines]
        all_good = True
        for job in await _find(opened, names):
            if job.state not in {"dead", "queued"}:
                raise UsageError(f"job {job.id} is {job.state}: it has taken effect already")
            seen = await dry_run(opened.sessions, job, open_store=Store, services=services)
            all_good = all_good and seen.is_good
            typer.echo(f"{job.id} would be {seen.outcome}: {json_text(seen.detail)}")
    return 0 if all_good else NOT_DONE


async def _cancel(names: list[str] | None, which: Filter, reason: str, *, yes: bool) -> int:
    async with open_connections("jobs", pool_size=CONNECTIONS) as opened:
        canceller = Canceller(opened.sessions, opened.redis, opened.settings.queue_name, reason)
        if names:
            jobs = await _find(opened, names)
            done = await canceller.these([job.id for job in jobs])
            return _report(jobs, done, "cancelled", "too late")
        await _confirm(opened, which, "cancel", yes=yes)
        total = 0
        async for count in canceller.all_of(which):
            total += count
        typer.echo(f"{total:,} jobs cancelled")
    return 0


def _why_none(which: Filter) -> str:
    """Return why a list is empty, and what to do."""
    if which == Filter():
        return "no jobs yet: enqueue one with `python -m worker enqueue KIND`"
    asked = ", ".join(
        f"{name}={value}" for name, value in which.as_parameters().items() if value is not None
    )
    meant = did_you_mean(which.kind, registry()) if which.kind else ""
    return f"no job matches {visible(asked)}{meant or ': leave a filter out to see more'}"


def _run(command: Coroutine[Any, Any, int]) -> None:
    """Run a command and exit with its code."""
    try:
        code = asyncio.run(command)
    except DBAPIError as error:
        if diagnose(error).trouble is not Trouble.LOCK_TIMEOUT:
            raise
        raise TellerError(
            "a job is locked by its own transaction at this moment: try again"
        ) from error
    raise typer.Exit(code)


def _console() -> Console:
    """Return the terminal; into a pipe or a file goes the whole width of a table."""
    return Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)


async def _find(opened: Connections, names: list[str]) -> list[Whole]:
    """Return jobs by their ids in PostgreSQL or in Redis.

    Raises:
        UsageError: one of them does not exist.
    """
    jobs = []
    async with opened.sessions() as session:
        for name in names:
            job = await find_job(session, job_id_of(name))
            if job is None:
                raise UsageError(f"there is no job {name}")
            jobs.append(job)
    return jobs


def _report(jobs: list[Whole], done: list[UUID], what: str, why_not: str) -> int:
    """Print of each job what became of it, and return the exit code."""
    for job in jobs:
        if job.id in done:
            typer.echo(f"{job.id} {what}")
        else:
            typer.echo(f"{job.id} is {job.state}: {why_not}", err=True)
    return 0 if len(done) == len(jobs) else NOT_DONE


async def _confirm(opened: Connections, which: Filter, verb: str, *, yes: bool) -> None:
    if yes:
        return
    async with opened.sessions() as session:
        count = await count_jobs(session, which)
    confirm(f"{verb} {count:,} {which.state} jobs?")


def _choice(ids: list[str] | None, which: Filter, *, every: bool) -> Filter:
    """Return the filter, if the command line says clearly which jobs are meant."""
    filtered = replace(which, state=None) != Filter()
    if bool(ids) + filtered + every != 1:
        raise UsageError("say which jobs: ids, or filters, or --all")
    return which


def _since(text: str | None) -> datetime | None:
    return None if text is None else parse_since(text, "--since")


def _position(after: str | None) -> Position | None:
    if after is None:
        return None
    try:
        return read_cursor(after)
    except ValueError:
        raise UsageError("--after takes what the previous page ended with") from None
