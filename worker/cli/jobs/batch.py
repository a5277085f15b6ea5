"""One batch: how far it is, watched until it is over, or cancelled as a whole."""

import asyncio
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobs import Client, JobNotFoundError
from worker.cli._options import UsageError

if TYPE_CHECKING:
    from uuid import UUID

    from jobs import Batch, BatchStatus
    from worker.cli._connections import Connections

LOOK_AGAIN_S: Final = 0.5
STATES: Final = ("queued", "completed", "rejected", "dead", "cancelled", "deleted")
MEANINGS: Final = {
    "open": "open",
    "held": "held by its dead jobs: retry them, or cancel the batch",
    "fired": "over",
    "cancelled": "cancelled",
}


def batch_of(opened: "Connections", batch_id: "UUID") -> "Batch":
    """Return the handle of a batch."""
    client = Client(
        opened.redis,
        sessions=opened.sessions,
        queue_name=opened.settings.queue_name,
        schema=opened.settings.database_schema,
    )
    return client.batch_handle(batch_id)


async def status_of(batch: "Batch") -> "BatchStatus":
    """Return how far a batch is.

    Raises:
        UsageError: there is none of this id.
    """
    try:
        return await batch.status()
    except JobNotFoundError:
        raise UsageError(f"there is no batch {batch.id}") from None


async def watch(batch: "Batch") -> "BatchStatus":
    """Show a batch's progress on standard error until it is over, and return what it ended as."""
    columns = (
        TextColumn("batch"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("")
        while True:
            status = await status_of(batch)
            bar.update(
                task, total=status.members, completed=status.final, description=counts(status)
            )
            if status.state in ("fired", "cancelled"):
                return status
            await asyncio.sleep(LOOK_AGAIN_S)


def counts(status: "BatchStatus") -> str:
    """Return the members by state, those that there are."""
    return ", ".join(
        f"{number:,} {state}" for state in STATES if (number := getattr(status, state))
    )


def told(status: "BatchStatus") -> str:
    """Return how far a batch is, in one line."""
    line = f"batch {status.id} is {MEANINGS[status.state]}: {counts(status) or 'no jobs'}"
    if status.state == "fired" and status.then_id is not None:
        return f"{line}; then came job {status.then_id}"
    return line


def as_dict(status: "BatchStatus") -> dict[str, Any]:
    """Return how far a batch is, for JSON."""
    return {**asdict(status), "members": status.members, "final": status.final}
