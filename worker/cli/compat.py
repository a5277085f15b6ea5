"""Check that this code takes what an older contract describes, or what is queued right now."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
import typer

from db.enqueue import live_payloads
from jobs import ClientError, parse_payload, registry
from worker.cli._connections import open_connections
from worker.cli._options import UsageError, command_line
from worker.cli.contract.compare import breaking_changes
from worker.cli.contract.schema import contract_of

app = command_line()

BREAKS: Final = 1
FAULTS_SHOWN_MAX: Final = 20

Against = Annotated[
    Path | None, typer.Option(help="The jobs/contract.json of what is deployed now.")
]
Live = Annotated[bool, typer.Option("--live", help="Parse every job queued in DATABASE_URL.")]


@app.command()
def compat(*, against: Against = None, live: Live = False) -> None:
    """Check that deploying this code breaks no queued job.

    With --against a kind may get other words and new optional fields: anything else is a break,
    and wants a new kind. Results are held to the same rule, for their readers. With --live every
    queued payload is parsed. Exit code 1 when something breaks.
    """
    if against is None and not live:
        raise UsageError("give --against OLD.json, --live, or both; see --help")
    faults: list[str] = []
    if against is not None:
        faults += breaking_changes(_contract_in(against), contract_of(registry()))
    if live:
        faults += asyncio.run(_live_faults())
    for fault in faults[:FAULTS_SHOWN_MAX]:
        typer.echo(fault, err=True)
    if len(faults) > FAULTS_SHOWN_MAX:
        typer.echo(f"and {len(faults) - FAULTS_SHOWN_MAX} more", err=True)
    typer.echo("nothing breaks" if not faults else f"{len(faults)} breaking changes")
    if faults:
        raise typer.Exit(BREAKS)


def _contract_in(path: Path) -> dict[str, Any]:
    try:
        contract = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise UsageError(f"cannot read a contract from {path}: {error}") from None
    entries = contract.values() if isinstance(contract, dict) else [None]
    if not all(isinstance(one, dict) and {"payload", "result"} <= one.keys() for one in entries):
        raise UsageError(f"{path} is not a jobs/contract.json")
    return dict(contract)


async def _live_faults() -> list[str]:
    """Parse every queued payload, and count what this code refuses by its reason."""
    refused: Counter[str] = Counter()
    example: dict[str, str] = {}
    async with open_connections("compat") as opened, opened.sessions() as session:
        async for job in live_payloads(session):
            try:
                parse_payload(job.kind, job.payload)
            except ClientError as error:
                refused[str(error)] += 1
                example.setdefault(str(error), str(job.id))
    return [
        f"{count:,} queued: {reason} (first: job {example[reason]})"
        for reason, count in refused.most_common()
    ]
