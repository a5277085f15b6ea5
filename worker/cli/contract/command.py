"""Generate what the code itself knows best: the contract with callers, and the pages of lists."""

from pathlib import Path
from typing import Annotated, Final

import typer

from jobs import registry
from worker.cli._options import command_line
from worker.cli.contract.jobs_page import jobs_page
from worker.cli.contract.metrics_page import events_page, metrics_page
from worker.cli.contract.schema import contract_of, contract_text

app = command_line()

ROOT: Final = Path(__file__).resolve().parents[3]
STALE: Final = 1

Check = Annotated[bool, typer.Option("--check", help="Write nothing; fail if a file is stale.")]


def generated_files() -> dict[str, str]:
    """Return what each generated file should hold, by its path in the project."""
    jobs = registry()
    contract = contract_of(jobs)
    return {
        "jobs/contract.json": contract_text(contract),
        "docs/jobs.md": jobs_page(jobs, contract),
        "docs/events.md": events_page(),
        "docs/metrics.md": metrics_page(),
    }


@app.command()
def contract(*, check: Check = False) -> None:
    """Generate jobs/contract.json and the pages made from the code.

    The contract holds the JSON Schema of every payload and result; the pages are docs/jobs.md,
    docs/events.md and docs/metrics.md. With --check a stale file is exit code 1, so that a change
    of any of them is seen in review.
    """
    files = generated_files()
    stale = {name: text for name, text in files.items() if _content(ROOT / name) != text}
    for name, text in stale.items():
        if not check:
            (ROOT / name).parent.mkdir(exist_ok=True)
            (ROOT / name).write_text(text, encoding="utf-8")
        typer.echo(f"{'stale' if check else 'wrote'} {name}", err=check)
    if check and stale:
        typer.echo("run `python -m worker contract`, and look at what changes", err=True)
        raise typer.Exit(STALE)
    if not stale:
        typer.echo(f"up to date: {', '.join(files)}")


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None
