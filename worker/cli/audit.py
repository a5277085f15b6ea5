"""Prove that nothing was lost or done twice: every rule of the books, in one snapshot."""

import asyncio
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from db.audit import Report
from db.store import Store
from worker.cli._alive import still_working
from worker.cli._connections import open_connections
from worker.cli._options import command_line
from worker.tables import json_text, lines_cell

app = command_line()

DIFFERENCE_FOUND = 1

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def run(as_json: Json = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Check every rule and print what breaks it, with ids.

    Exit code 0 when the difference is 0, else 1.
    """
    report = asyncio.run(_audit())
    if as_json:
        sys.stdout.write(json_text(asdict(report), indented=True) + "\n")
    else:
        show(report, Console())
    raise typer.Exit(DIFFERENCE_FOUND if report.differences else 0)


async def _audit() -> Report:
    async with open_connections("audit") as opened, opened.sessions() as session:
        audit = Store(session).audit
        async with still_working(lambda: audit.step):
            return await audit.run_in_snapshot()


def show(report: Report, console: Console) -> None:
    """Print an audit as tables that a person reads."""
    states = ("completed", "rejected", "dead", "cancelled", "queued")
    parts = " + ".join(f"{report.jobs.get(state, 0):,} {state}" for state in states)
    console.print(f"{report.jobs['accepted']:,} accepted = {parts}")
    for name, rows in report.counts.items():
        console.print(f"{rows:,} {name}")
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in report.findings:
        if not finding.differences:
            table.add_row("ok", finding.meaning)
            continue
        broken = f"{finding.name}: {finding.differences:,} differ: {finding.meaning}"
        table.add_row("BROKEN", broken, style="bold red")
        table.add_row("", lines_cell(finding.ids), style="red")
    console.print(table)
    console.print(f"difference: {report.differences:,}")
