"""Generate the contract with callers: jobs/contract.json and docs/jobs.md."""

from typing import Annotated

import typer

from jobs import registry
from worker.cli.contract.schema import ROOT, files_of

app = typer.Typer(add_completion=False, help=__doc__)

STALE = 1

Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is stale.")]


@app.command()
def contract(*, check: Check = False) -> None:
    """Write the JSON Schema of every payload and result, and the catalogue of jobs."""
    wanted = files_of(registry())
    stale = {
        path: text
        for path, text in wanted.items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    for path, text in stale.items():
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        typer.echo(f"{'stale' if check else 'wrote'} {path.relative_to(ROOT)}", err=check)
    if check and stale:
        typer.echo("run `python -m worker contract`, and look at what changes", err=True)
        raise typer.Exit(STALE)
    if not stale:
        typer.echo("jobs/contract.json and docs/jobs.md are up to date")
