"""Watch it work: users, crossing transfers, duplicates, reports, and an audit at the end."""

import asyncio

import typer
from rich.console import Console

from worker.cli._faults import explaining_servers
from worker.cli._options import command_line
from worker.dev.demo import play, show
from worker.dev.demo.play import StandstillError
from worker.dev.local import local_servers

app = command_line()

WRONG = 1


@app.command()
def demo() -> None:
    """Play a small bank's busy minute on real servers.

    It uses DATABASE_URL and REDIS_URL where they are set, else it starts both servers from wheels,
    in .teller/. Exit code 0 only if the books balance and nothing is missing.
    """
    console = Console()
    with local_servers() as settings, explaining_servers():
        try:
            summary = asyncio.run(play(settings, console))
        except StandstillError as error:
            console.print(f"[red]{error}[/]")
            raise typer.Exit(WRONG) from None
    show(summary, console)
    raise typer.Exit(0 if summary.is_good else WRONG)
