"""Pauses: what an operator does while jobs of that kind are in Redis, in lanes and in slots."""

import asyncio
from typing import TYPE_CHECKING, Final

from db.pauses import Pauses
from worker.dev.chaos.faults.kind import Kind
from worker.dev.chaos.retrying import retry_until_up

if TYPE_CHECKING:
    from worker.dev.chaos.faults.kind import Fault, Targets

PAUSED_KINDS: Final = ("transfer_funds", "pay_out", "chaos_errand", "deliver_webhook")
REASON: Final = "chaos"


async def pause_kind(targets: "Targets", fault: "Fault") -> None:
    """Let no job of one kind begin for a while."""
    await _pause(targets, fault, "kind", PAUSED_KINDS[int(fault.victim * len(PAUSED_KINDS))])


async def pause_queue(targets: "Targets", fault: "Fault") -> None:
    """Let no job of the queue begin for a while."""
    await _pause(targets, fault, "queue", "default")


async def _pause(targets: "Targets", fault: "Fault", what: str, name: str) -> None:
    async def begin() -> None:
        async with targets.connections.sessions.begin() as session:
            await Pauses(session).begin(what, name, reason=REASON, by=REASON, until=None)

    async def end() -> None:
        async with targets.connections.sessions.begin() as session:
            await Pauses(session).end(what, name)

    # One at a time: the end of one would end another of the same name.
    async with targets.pause_turn:
        await retry_until_up(begin)
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            await retry_until_up(end)


KINDS: Final = (
    Kind(
        "paused-kind",
        "one kind of job is paused for some seconds, and resumed",
        pause_kind,
        hold_s=(1.0, 4.0),
        is_outage=True,
    ),
    Kind(
        "paused-queue",
        "the queue is paused for some seconds, and resumed",
        pause_queue,
        hold_s=(1.0, 4.0),
        is_outage=True,
    ),
)
