"""What became of a delivery, as values: from the handler's answer, or from the job's row."""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json

from db.execution import FinalState, Record, Stored
from jobs import Cancel, Continue, Rejected, Snooze
from jobs._payload import has_nul
from worker.execution.error_text import printable

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from jobs import Job
    from worker.execution.delivery import Delivery

ROW_CHANGED_RETRY: Final = timedelta(seconds=2)
REASON_CHARACTERS_MAX: Final = 500
"""Of the code and the words of a rejection or a cancellation."""


CURSOR_BYTES_MAX: Final = 65_536
"""Of what a slice leaves to the next one: the bulk belongs in a table."""


class InvalidCursorError(ValueError):
    """A handler's cursor is no JSON, or too large."""


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
class Continued:
    """A slice of the job took effect; the next one begins at the cursor."""

    cursor_json: str
    delay: timedelta


@dataclass(frozen=True, slots=True)
class Conflict:
    """The id belongs to a job with another payload; nothing was done."""


Outcome = Finished | Later | Conflict


@dataclass(frozen=True, slots=True)
class Superseded:
    """The job's row is queued, and not as it was delivered: the row is right.

    It holds another payload, or more slices of the job took effect meanwhile.
    """

    stored: Stored


Answer = Finished | Continued | Later
"""What a handler's answer comes to."""


def outcome_of(answer: object) -> Answer:
    """Return what a handler's answer makes of its job.

    Raises:
        TypeError: the answer is neither a result nor a decision.
        InvalidCursorError: it continues from what cannot be kept.
    """
    match answer:
        case Rejected(code, message):
            return Finished("rejected", {"code": _short(code), "message": _short(message)})
        case Cancel(reason):
            return Finished("cancelled", {"reason": _short(reason)})
        case Snooze(delay):
            return Later(max(delay, timedelta()))
        case Continue(cursor, delay):
            return Continued(_cursor_json(cursor), max(delay, timedelta()))
        case BaseModel():
            return Finished("completed", answer.model_dump(mode="json"))
        case None:
            return Finished("completed", None)
    raise TypeError(f"a handler answers a Result or a decision, not {type(answer).__name__}")


def _cursor_json(cursor: object) -> str:
    try:
        text = to_json(cursor).decode()
    except ValueError as error:
        raise InvalidCursorError(f"the cursor is no JSON: {type(error).__name__}") from None
    if len(text) > CURSOR_BYTES_MAX:
        raise InvalidCursorError(f"the cursor has more than {CURSOR_BYTES_MAX} bytes")
    if has_nul(text):
        raise InvalidCursorError("the cursor contains the character U+0000")
    return text


def keeps_effects(outcome: Answer) -> bool:
    """Return whether what the handler wrote is committed together with this outcome."""
    match outcome:
        case Finished(state):
            return state == "completed"
        case Continued():
            return True
        case _:
            return False


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
        is_this_one = stored.same_payload and stored.slices == delivery.job.slices
        return None if is_this_one else Superseded(stored)
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
