"""Doors 1 and 2 from Python: jobs accepted in the caller's own transaction, rung after its commit.

SQLAlchemy is imported only here and only inside functions: a caller who has a session has it.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic_core import to_json

from .._errors import (
    ClientError,
    InvalidKeyError,
    InvalidPayloadError,
    InvalidTimeError,
    KeyConflictError,
    UnknownKindError,
)
from .._parse import payload_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy import Transaction
    from sqlalchemy.orm import Session, SessionTransaction

    from .._job import Payload

# One statement for one job or thousands. `try_enqueue_job` returns a refusal instead of raising it,
# which leaves the caller's transaction usable.
OFFER: Final = """
    SELECT offer.id, offer.created, offer.fault, offer.message, offer.hint
    FROM ROWS FROM (
      jsonb_to_recordset(CAST(:wishes AS jsonb))
      AS (kind text, payload jsonb, key text, run_at timestamptz, traceparent text)
    ) WITH ORDINALITY AS wish (kind, payload, key, run_at, traceparent, position)
    CROSS JOIN LATERAL try_enqueue_job(
      wish.kind, wish.payload, wish.key, wish.run_at, NULL, wish.traceparent) AS offer
    ORDER BY wish.position
"""

FIND: Final = """
    SELECT kind, state, result, attempts, run_at > clock_timestamp() AS later
    FROM jobs WHERE id = CAST(:id AS uuid)
"""

CANCEL: Final = "SELECT cancel_job(CAST(:id AS uuid), :reason)"

FAULTS: Final[dict[str, type[ClientError]]] = {
    "TL001": UnknownKindError,
    "TL002": InvalidPayloadError,
    "TL003": KeyConflictError,
    "TL004": InvalidKeyError,
    "TL005": InvalidTimeError,
}

_PENDING: Final = "teller_jobs.pending"


@dataclass(frozen=True, slots=True)
class Wish:
    """One job that a caller wants, as every door needs it."""

    payload: "Payload"
    key: str | None
    run_at: datetime | None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of a wish: the job's id, and whether this wish made it."""

    id: UUID
    fresh: bool


def offer_in(
    session: "Session",
    wishes: "Sequence[Wish]",
    after_commit: "Callable[[list[tuple[UUID, Wish]]], None]",
) -> list[Offer]:
    """Insert jobs in the session's transaction, in one round trip.

    Args:
        session: the caller's; nothing is committed here.
        wishes: in order; a key that occurs twice is one job.
        after_commit: called with the new jobs once the transaction has committed, and only then.

    Raises:
        ClientError: one wish was refused. The others are in the transaction, which is usable.
    """
    from sqlalchemy import text

    document = to_json([_row(wish) for wish in wishes]).decode()
    rows = session.execute(text(OFFER), {"wishes": document}).all()
    answers = [Offer(UUID(str(row.id)), row.created) for row in rows if row.fault is None]
    if len(answers) < len(rows):
        row = next(row for row in rows if row.fault is not None)
        raise FAULTS.get(row.fault, ClientError)(f"{row.message}: {row.hint}")
    fresh = [(a.id, wish) for a, wish in zip(answers, wishes, strict=True) if a.fresh]
    if fresh:
        _after_commit(session, fresh, after_commit)
    return answers


def find_in(session: "Session", job_id: UUID) -> "dict[str, Any] | None":
    """Return what the record says of a job."""
    from sqlalchemy import text

    row = session.execute(text(FIND), {"id": str(job_id)}).one_or_none()
    return None if row is None else row._asdict()


def cancel_in(session: "Session", job_id: UUID, reason: str) -> bool:
    """Cancel a job that has not taken effect, in the session's transaction."""
    from sqlalchemy import text

    query = {"id": str(job_id), "reason": reason}
    return bool(session.execute(text(CANCEL), query).scalar_one())


def _row(wish: Wish) -> dict[str, object]:
    payload_json(wish.payload)  # refuses what the cast to jsonb would fail on
    return {
        "kind": wish.payload.kind,
        "payload": wish.payload.to_wire(),
        "key": checked_key(wish.key),
        "run_at": wish.run_at,
        "traceparent": wish.traceparent,
    }


KEY_CHARACTERS_MAX: Final = 200


def checked_key(key: str | None) -> str | None:
    """Return the key if every door takes it.

    Raises:
        InvalidKeyError: it is empty, too long, or cannot be stored.
    """
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_CHARACTERS_MAX or "\x00" in key:
        raise InvalidKeyError(
            f"a key has 1 to {KEY_CHARACTERS_MAX} characters and no U+0000, "
            f"this one has {len(key)}: use an id of your own, such as order-42"
        )
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError("a key is Unicode text without lone surrogates") from None
    return key


YEAR_MIN: Final = 1970


def checked_time(run_at: datetime) -> datetime:
    """Return the time in UTC if every door takes it.

    Raises:
        InvalidTimeError: it has no time zone, or is outside the years 1970 to 9999.
    """
    if run_at.tzinfo is None:
        raise InvalidTimeError("run_at needs a time zone: for example datetime.now(UTC) + …")
    try:
        in_utc = run_at.astimezone(UTC)
    except OverflowError:
        in_utc = datetime.min.replace(tzinfo=UTC)
    if in_utc.year < YEAR_MIN:
        raise InvalidTimeError("run_at is outside the years 1970 to 9999: leave it out for now")
    return in_utc


@dataclass(slots=True)
class _Pending:
    """Jobs that exist if and only if a transaction commits."""

    transaction: "SessionTransaction"
    """The savepoint they were made in, or the session's whole transaction."""
    root: "Transaction"
    """The connection's own transaction: it alone can make them visible to others."""
    jobs: list[tuple[UUID, Wish]]
    tell: "Callable[[list[tuple[UUID, Wish]]], None]"


def _after_commit(
    session: "Session",
    fresh: list[tuple[UUID, Wish]],
    tell: "Callable[[list[tuple[UUID, Wish]]], None]",
) -> None:
    from sqlalchemy import event

    if _PENDING not in session.info:
        session.info[_PENDING] = []
        event.listen(session, "after_commit", _on_commit)
        event.listen(session, "after_transaction_end", _on_end)
    transaction = session.get_nested_transaction() or session.get_transaction()
    root = session.connection().get_transaction()
    if transaction is None or root is None:  # pragma: no cover - a statement has just run in both
        return
    session.info[_PENDING].append(_Pending(transaction, root, fresh, tell))


def _on_commit(session: "Session") -> None:
    pending: list[_Pending] = session.info[_PENDING]
    savepoint = session.get_nested_transaction()
    if savepoint is not None:
        # Released, not committed: what was made in it now depends on what is around it.
        for one in pending:
            if one.transaction is savepoint:
                one.transaction = _around(savepoint)
        return
    session.info[_PENDING] = []
    for one in pending:
        # Still active: the session was given a connection whose owner has yet to commit. The
        # relay sends these; a ring now could arrive before the job is there.
        if not one.root.is_active:
            one.tell(one.jobs)


def _on_end(session: "Session", ended: "SessionTransaction") -> None:
    """Forget what was rolled back, or closed without a commit."""
    session.info[_PENDING] = [one for one in session.info[_PENDING] if one.transaction is not ended]


def _around(savepoint: "SessionTransaction") -> "SessionTransaction":
    outer = savepoint
    while outer.parent is not None:
        outer = outer.parent
        if outer.nested:
            break
    return outer
