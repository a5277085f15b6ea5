"""End the pause of a kind of job or a queue."""

import asyncio
from typing import Annotated

import typer

from db.pauses import Pauses
from worker.cli._connections import open_connections
from worker.cli._options import command_line
from worker.cli.pause import target_of

app = command_line()

Kind = Annotated[str | None, typer.Option(help="The kind of job.")]
Queue = Annotated[str | None, typer.Option(help="The queue.")]
NOT_PAUSED = 1


@app.command()
def resume(kind: Kind = None, queue: Queue = None) -> None:
    """Let the jobs of a paused kind or queue begin again.

    In every process, within a second. Exit code 1 where it was not paused.
    """
    what, name = target_of(kind, queue)
    was_paused = asyncio.run(_end(what, name))
    typer.echo(f"{what} {name} {'runs again' if was_paused else 'was not paused'}")
    if not was_paused:
        raise typer.Exit(NOT_PAUSED)


async def _end(what: str, name: str) -> bool:
    async with (
        open_connections("resume") as opened,
        opened.sessions() as session,
        session.begin(),
    ):
        return await Pauses(session).end(what, name)
