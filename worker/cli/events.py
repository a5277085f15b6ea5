"""Write docs/events.md and docs/metrics.md from the code."""

from pathlib import Path
from typing import Annotated, Final

import typer

from worker.cli.contract.metrics_page import events_page, metrics_page

app = typer.Typer(add_completion=False, help=__doc__)

DOCS: Final = Path(__file__).parents[2] / "docs"

Check = Annotated[bool, typer.Option("--check", help="Write nothing; exit 1 if one is stale.")]


@app.command()
def events(check: Check = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Write docs/events.md and docs/metrics.md from the code, or check that they are fresh."""
    pages = {DOCS / "events.md": events_page(), DOCS / "metrics.md": metrics_page()}
    stale = [
        path
        for path, text in pages.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    if check:
        for path in stale:
            typer.echo(f"{path} is stale: run `python -m worker events`", err=True)
        raise typer.Exit(1 if stale else 0)
    for path in stale:
        path.write_text(pages[path], encoding="utf-8")
        typer.echo(f"wrote {path}")
