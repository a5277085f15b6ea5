"""List jobs, look at one, run dead ones again, cancel what has not run."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

import typer
from redis.asyncio import Redis
from rich.console import Console
from sqlalchemy.exc import DBAPIError

from db.engine import create_sessions
from db.errors import Trouble, diagnose
from db.operations import PAGE_MAX, Filter, Position, Whole, count_jobs, find_job, list_jobs
from jobs._client.redis import job_id_of
from worker.app import database
from worker.cli.jobs.cancel import Canceller
from worker.cli.jobs.retry import Replayer
from worker.cli.jobs.tables import (
    as_json,
    cursor_of,
    list_as_json,
    read_cursor,
    show_list,
    show_whole,
    whole_as_dict,
)
from worker.errors import StartupError, TellerError
from worker.execution.dry_run import Preview, dry_run
from worker.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.settings import Settings

PIPED_WIDTH: Final = 180

app = typer.Typer(add_completion=False, help=__doc__, no_args_is_help=True)

NOT_DONE: Final = 1
PAGE: Final = 50
REHEARSED_MAX: Final = 100
"""Dry runs at a time: each holds locks like a run that counts."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}

StateName = Literal["queued", "completed", "rejected", "dead", "cancelled"]

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="Job ids, or arq's own.")]
State = Annotated[StateName | None, typer.Option(help="Only jobs in this state.")]
Kind = Annotated[str | None, typer.Option(help="Only jobs of this kind.")]
Since = Annotated[
    str | None, typer.Option(help="Only jobs accepted since: 30m, 2h, 7d, or 2026-01-31T09:00.")
]
Error = Annotated[
    str | None, typer.Option(help="Only jobs with this error: its class name, or its SQLSTATE.")
]
Limit = Annotated[int, typer.Option(min=1, max=PAGE_MAX, help="Jobs on a page.")]
After = Annotated[str | None, typer.Option(help="Go on where the page before ended.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs.")]
Payload = Annotated[
    bool, typer.Option("--payload", help="Print payload and result too: they may be personal.")
]
All = Annotated[bool, typer.Option("--all", help="All of them, where no filter is given.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Run, roll back, and show what would come of it.")
]
Reason = Annotated[str, typer.Option(help="Kept with the job, and told to who waits for it.")]


class UsageError(TellerError):
    """The command line asks for what cannot be done."""


@dataclass(frozen=True, slots=True)
class Desk:
    """What the commands work with."""

    settings: "Settings"
    sessions: "async_sessionmaker[AsyncSession]"
    redis: Redis
    console: Console

    async def find(self, name: str) -> Whole:
        """Return a job by its id in the record or in Redis."""
        async with self.sessions() as session:
            job = await find_job(session, job_id_of(name))
        if job is None:
            raise UsageError(f"there is no job {name} in the record")
        return job


@app.command("list")
def list_(  # noqa: PLR0913 - the options of a command line
    *,
    state: State = None,
    kind: Kind = None,
    since: Since = None,
    error: Error = None,
    limit: Limit = PAGE,
    after: After = None,
    json: Json = False,
) -> None:
    """List jobs, newest first, a page at a time."""
    which = Filter(state, kind, _since(since), error)
    _run(_list(which, _position(after), limit, json=json))


@app.command()
def show(
    job_id: Annotated[str, typer.Argument(metavar="ID")],
    *,
    payload: Payload = False,
    json: Json = False,
) -> None:
    """Show one job: its times, every error with its SQLSTATE, and every replay."""
    _run(_show(job_id, payload=payload, json=json))


@app.command()
def retry(  # noqa: PLR0913 - the options of a command line
    ids: Ids = None,
    *,
    kind: Kind = None,
    since: Since = None,
    error: Error = None,
    every: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Run dead jobs again: by id, or all that the filters let through.

    Their attempts are renewed and their errors kept. With --dry-run the handlers run now, in
    transactions that are rolled back, and nothing changes.
    """
    which = _choice(ids, Filter("dead", kind, _since(since), error), every=every)
    if dry_run:
        _run(_rehearse(ids, which))
    else:
        _run(_retry(ids, which, yes=yes))


@app.command()
def cancel(  # noqa: PLR0913 - the options of a command line
    ids: Ids = None,
    *,
    kind: Kind = None,
    since: Since = None,
    error: Error = None,
    every: All = False,
    reason: Reason = "cancelled by an operator",
    yes: Yes = False,
) -> None:
    """Cancel jobs that have not taken effect; one that runs at this moment is stopped."""
    which = _choice(ids, Filter("queued", kind, _since(since), error), every=every)
    _run(_cancel(ids, which, reason, yes=yes))


async def _list(which: Filter, before: Position | None, limit: int, *, json: bool) -> int:
    async with _desk() as desk:
        async with desk.sessions() as session:
            lines = list(await list_jobs(session, which, before=before, limit=limit))
        if json:
            typer.echo(list_as_json(lines), nl=bool(lines))
        else:
            show_list(lines, desk.console)
        if len(lines) == limit:
            typer.echo(f"more: --after {cursor_of(lines[-1])}", err=True)
    return 0


async def _show(name: str, *, payload: bool, json: bool) -> int:
    async with _desk() as desk:
        job = await desk.find(name)
        if json:
            typer.echo(as_json(whole_as_dict(job, payload=payload), indented=True))
        else:
            show_whole(job, desk.console, payload=payload)
    return 0


async def _retry(names: list[str] | None, which: Filter, *, yes: bool) -> int:
    async with _desk() as desk:
        replayer = Replayer(desk.sessions, desk.redis, desk.settings.queue_name)
        if names:
            jobs = [await desk.find(name) for name in names]
            done = await replayer.these([job.id for job in jobs])
            return _left_over(jobs, done, "put back", "only dead jobs can be retried")
        await _confirm(desk, which, "retry", yes=yes)
        total = 0
        async for count in replayer.all_of(which):
            total += count
        typer.echo(f"{total:,} jobs put back")
    return 0


async def _rehearse(names: list[str] | None, which: Filter) -> int:
    async with _desk() as desk:
        if not names:
            async with desk.sessions() as session:
                lines = await list_jobs(session, which, before=None, limit=REHEARSED_MAX)
            names = [str(line.id) for line in lines]
        all_good = True
        for name in names:
            job = await desk.find(name)
            if job.state not in {"dead", "queued"}:
                raise UsageError(f"job {job.id} is {job.state}: it has taken effect already")
            seen = await dry_run(desk.sessions, job)
            all_good = all_good and seen.is_good
            typer.echo(_rehearsed(job.id, seen))
    return 0 if all_good else NOT_DONE


async def _cancel(names: list[str] | None, which: Filter, reason: str, *, yes: bool) -> int:
    async with _desk() as desk:
        canceller = Canceller(desk.sessions, desk.redis, desk.settings.queue_name, reason)
        if names:
            jobs = [await desk.find(name) for name in names]
            done = await canceller.these([job.id for job in jobs])
            return _left_over(jobs, done, "cancelled", "too late")
        await _confirm(desk, which, "cancel", yes=yes)
        total = 0
        async for count in canceller.all_of(which):
            total += count
        typer.echo(f"{total:,} jobs cancelled")
    return 0


@asynccontextmanager
async def _desk() -> AsyncIterator[Desk]:
    settings = load_settings()
    redis = Redis.from_url(str(settings.redis_url), socket_connect_timeout=2)
    try:
        async with database(settings, name="teller-jobs", pool_size=2) as engine:
            # Into a pipe or a file goes the whole table, not what eighty columns leave of it.
            console = Console() if sys.stdout.isatty() else Console(width=PIPED_WIDTH)
            yield Desk(settings, create_sessions(engine), redis, console)
    finally:
        await redis.aclose()


def _run(command: Coroutine[Any, Any, int]) -> None:
    try:
        code = asyncio.run(command)
    except (OSError, DBAPIError) as error:
        match diagnose(error).trouble:
            case Trouble.CONNECTION:
                message = "cannot reach the database: check DATABASE_URL, and that it is up"
            case Trouble.LOCK_TIMEOUT:
                message = "a job is held by its own transaction at this moment: try again"
            case _:
                raise
        raise StartupError(message) from error
    raise typer.Exit(code)


def _left_over(jobs: list[Whole], done: list[UUID], what: str, why_not: str) -> int:
    """Say of each job what became of it; return the exit code."""
    for job in jobs:
        if job.id in done:
            typer.echo(f"{job.id} {what}")
        else:
            typer.echo(f"{job.id} is {job.state}: {why_not}", err=True)
    return 0 if len(done) == len(jobs) else NOT_DONE


def _rehearsed(job_id: UUID, seen: Preview) -> str:
    return f"{job_id} would be {seen.outcome}: {as_json(seen.detail)}"


async def _confirm(desk: Desk, which: Filter, verb: str, *, yes: bool) -> None:
    async with desk.sessions() as session:
        count = await count_jobs(session, which)
    if not yes:
        typer.confirm(f"{verb} {count:,} {which.state} jobs?", abort=True)


def _choice(ids: list[str] | None, which: Filter, *, every: bool) -> Filter:
    """Return the filter if the command line says clearly which jobs are meant."""
    filtered = replace(which, state=None) != Filter()
    if bool(ids) + filtered + every != 1:
        raise UsageError("say which jobs: ids, or filters, or --all")
    return which


def _since(text: str | None) -> datetime | None:
    if text is None:
        return None
    ago = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if ago:
        return datetime.now(UTC) - timedelta(seconds=int(ago[1]) * _UNITS[ago[2]])
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError("--since is 30m, 2h, 7d, or a time like 2026-01-31T09:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _position(after: str | None) -> Position | None:
    if after is None:
        return None
    try:
        return read_cursor(after)
    except ValueError:
        raise UsageError("--after takes what the page before ended with") from None
