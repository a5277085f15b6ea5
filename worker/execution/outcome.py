"""What became of a delivery, as values: from the handler's answer, or from the job's row."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from db.execution import FinalState, Record, Stored
from jobs import Cancel, Rejected, Snooze
from worker.execution.error_text import printable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from jobs import Job
    from worker.execution.delivery import Delivery

ROW_CHANGED_RETRY: Final = timedelta(seconds=2)
REASON_CHARACTERS_MAX: Final = 500
"""Of the code and the words of a rejection or a cancellation."""


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


@dataclass(frozen=True, slots=True)
class Superseded:
    """The job's row is queued, and holds another payload than was delivered: the row is right."""

    stored: Stored


def outcome_of(answer: object) -> Finished | Later:
    """Return what a handler's answer makes of its job.

    Raises:
        TypeError: the answer is neither a result nor a decision.
    """
    match answer:
        case Rejected(code, message):
            return Finished("rejected", {"code": _short(code), "message": _short(message)})
        case Cancel(reason):
            return Finished("cancelled", {"reason": _short(reason)})
        case Snooze(delay):
            return Later(max(delay, timedelta()))
        case BaseModel():
            return Finished("completed", answer.model_dump(mode="json"))
        case None:
            return Finished("completed", None)
    raise TypeError(f"a handler answers a Result or a decision, not {type(answer).__name__}")


def keeps_effects(outcome: Outcome) -> bool:
    """Return whether what the handler wrote is committed together with this outcome."""
    return isinstance(outcome, Finished) and outcome.state == "completed"


def _short(text: object) -> str:
    return printable(str(text), REASON_CHARACTERS_MAX)


async def lost(
    session: "AsyncSession", delivery: "Delivery", job: "Job | None"
) -> Outcome | Superseded:
    """Return what another delivery did first. Call it after rolling back."""
    stored = await Record(session).find(delivery.job)
    found = None if stored is None else outcome_in(stored, delivery, job)
    # If nothing is there, the row has changed since: an operator replayed or removed it.
    return found or Later(ROW_CHANGED_RETRY)


def outcome_in(
    stored: Stored, delivery: "Delivery", job: "Job | None"
) -> Finished | Conflict | Superseded | None:
    """Return what a job's row means for a delivery; None: the job is this one, and queued."""
    if stored.state == "queued":
        return None if stored.same_payload else Superseded(stored)
    if stored.state == "cancelled" and stored.payload_json == "null":
        # A tombstone: cancelled before anybody knew what it was.
        return Finished(stored.state, stored.result, replayed=True)
    if delivery.by_id or stored.same_payload or _mean_the_same(stored, delivery, job):
        return Finished(stored.state, stored.result, replayed=True)
    return Conflict()


def _mean_the_same(stored: Stored, delivery: "Delivery", job: "Job | None") -> bool:
    """Return whether two payloads are equal to the kind's own model, if not to jsonb."""
    if job is None or stored.kind != delivery.job.kind:
        return False
    try:
        kept = job.payload.model_validate_json(stored.payload_json)
        return bool(kept == job.payload.model_validate_json(delivery.job.payload_json))
    except ValidationError:
        return False
