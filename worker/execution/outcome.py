"""What became of a delivery, as values: from the handler's answer, or from the job's row."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from db.execution import FinalState, Record, Stored
from jobs import Cancel, Rejected, Snooze

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


def outcome_of(answer: object) -> Finished | Later:
    """Return what a handler's answer makes of its job.

    Raises:
        TypeError: the answer is neither a result nor a decision.
    """
    match answer:
        case Rejected(code, message):
            return Finished("rejected", {"code": code, "message": message})
        case Cancel(reason):
            return Finished("cancelled", {"reason": reason})
        case Snooze(delay):
            return Later(delay)
        case BaseModel():
            return Finished("completed", answer.model_dump(mode="json"))
        case None:
            return Finished("completed", None)
    raise TypeError(f"a handler answers a Result or a decision, not {type(answer).__name__}")


def keeps_effects(outcome: Outcome) -> bool:
    """Return whether what the handler wrote is committed together with this outcome."""
    return isinstance(outcome, Finished) and outcome.state == "completed"


async def settled(session: "AsyncSession", delivery: "Delivery") -> Outcome | None:
    """Return the outcome that an earlier delivery stored, if there is one."""
    stored = await Record(session).find(delivery.job)
    return None if stored is None else outcome_in(stored)


async def lost(session: "AsyncSession", delivery: "Delivery") -> Outcome:
    """Return the outcome that another delivery stored first. Call it after rolling back."""
    # If nothing final is there, the row has changed since: an operator replayed or removed it.
    return await settled(session, delivery) or Later(ROW_CHANGED_RETRY)


def outcome_in(stored: Stored) -> Outcome | None:
    """Return the outcome that a row stands for, or None while it is queued."""
    if not stored.same_payload:
        return Conflict()
    if stored.state == "queued":
        return None
    return Finished(stored.state, stored.result, replayed=True)
