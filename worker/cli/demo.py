"""Watch it work: users, crossing transfers, duplicates, reports, and an audit at the end."""

import asyncio

import typer
from rich.console import Console

from worker.dev.demo import play, show
from worker.dev.demo.play import StandstillError
from worker.dev.local import services

app = typer.Typer(add_completion=False, help=__doc__)

WRONG = 1


@app.command()
def demo() -> None:
    """Play a small bank's busy minute on real servers.

    With DATABASE_URL and REDIS_URL set it uses those, else it starts both from wheels in .teller/.
    Exit code 0 only if the books balance and nothing is missing.
    """
    console = Console()
    with services() as settings:
        try:
            summary = asyncio.run(play(settings, console))
        except StandstillError as error:
            console.print(f"[red]{error}[/]")
            raise typer.Exit(WRONG) from None
    show(summary, console)
    raise typer.Exit(0 if summary.is_good else WRONG)
