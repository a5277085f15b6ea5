"""Pause a kind of job or a queue, everywhere; without a target, show what is paused."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

import typer

from db.errors import sqlstate_of
from db.pauses import Pause, Pauses
from worker.cli._connections import open_connections
from worker.cli._options import UsageError, command_line, operator, parse_duration

app = command_line()

Kind = Annotated[str | None, typer.Option(help="The kind of job to pause.")]
Queue = Annotated[str | None, typer.Option(help="The queue to pause.")]
Reason = Annotated[str | None, typer.Option(help="Why: health tells it.")]
For = Annotated[str | None, typer.Option("--for", help="Ends by itself after 30m, 2h, 1d.")]
By = Annotated[str | None, typer.Option(help="Who; by default this user.")]

UNKNOWN_KIND = "TL001"


@app.command()
def pause(
    kind: Kind = None,
    queue: Queue = None,
    reason: Reason = None,
    duration: For = None,
    by: By = None,
) -> None:
    """Let no more jobs of a kind or a queue begin, in any process.

    It takes a second. Jobs are accepted all the same, and those that run go on; `resume` ends it.
    """
    if kind is None and queue is None:
        asyncio.run(_show())
        return
    what, name = target_of(kind, queue)
    if not reason:
        raise UsageError("give --reason: whoever finds jobs waiting should learn why")
    until = None if duration is None else datetime.now(UTC) + parse_duration(duration, "--for")
    asyncio.run(_begin(what, name, reason, by or operator(), until))
    typer.echo(f"{what} {name} is paused{'' if until is None else f' until {until:%F %T} UTC'}")


def target_of(kind: str | None, queue: str | None) -> tuple[str, str]:
    """Return what is meant, `kind` or `queue`, and its name.

    Raises:
        UsageError: not exactly one of them was given.
    """
    if kind is not None and queue is None:
        return "kind", kind
    if queue is not None and kind is None:
        return "queue", queue
    raise UsageError("give --kind or --queue, one of them")


async def _begin(what: str, name: str, reason: str, by: str, until: datetime | None) -> None:
    async with open_connections("pause") as opened:
        try:
            async with opened.sessions() as session, session.begin():
                await Pauses(session).begin(what, name, reason=reason, by=by, until=until)
        except Exception as error:
            if sqlstate_of(error) == UNKNOWN_KIND:
                raise UsageError(f"there is no kind {name!r} in this database") from None
            raise


async def _show() -> None:
    async with open_connections("pause") as opened, opened.sessions() as session:
        active = [one for one in await Pauses(session).read() if one.active]
    for one in active:
        typer.echo(_in_words(one))
    if not active:
        typer.echo("nothing is paused")


def _in_words(pause: Pause) -> str:
    end = "until somebody resumes it" if pause.until is None else f"until {pause.until:%F %T} UTC"
    since = f"since {pause.since:%F %T} UTC, {end}"
    return f"{pause.what} {pause.name} {since}, by {pause.by}: {pause.reason}"
