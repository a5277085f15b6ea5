"""What became of a delivery, as values."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from db.execution import FinalState, Record, Stored

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from worker.execution.delivery import Delivery

ROW_CHANGED_RETRY: Final = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is final: by this delivery, or by an earlier one."""

    state: FinalState
    result: Any
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """The job goes back to the queue."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Conflict:
    """The id belongs to a job with another payload; nothing was done."""


Outcome = Finished | Later | Conflict


async def settled(session: "AsyncSession", delivery: "Delivery") -> Outcome | None:
    """Return the outcome that an earlier delivery left, if there is one."""
    stored = await Record(session).find(delivery.job)
    return None if stored is None else lost_to(stored)


async def lost(session: "AsyncSession", delivery: "Delivery") -> Outcome:
    """Return what the fence lost to; whatever stood before it was rolled back."""
    # If nothing final is there, the row has changed since: somebody replayed or removed the job.
    return await settled(session, delivery) or Later(ROW_CHANGED_RETRY)


def lost_to(stored: Stored) -> Outcome | None:
    """Return the outcome that a row stands for, or None while it is queued."""
    if not stored.same_payload:
        return Conflict()
    if stored.state == "queued":
        return None
    return Finished(stored.state, stored.result, replayed=True)
