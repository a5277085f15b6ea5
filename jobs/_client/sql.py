"""Jobs through PostgreSQL: accepted, found and cancelled in a session's transaction.

SQLAlchemy is imported only inside functions: a caller who has a session has it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from .._errors import (
    ClientError,
    InvalidKeyError,
    InvalidPayloadError,
    InvalidTimeError,
    KeyConflictError,
    UnknownKindError,
)
from .request import CheckedRequest, Enqueued

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.orm import Session

# One statement for one job or thousands. `try_enqueue_job` returns a refusal instead of raising it,
# which leaves the caller's transaction usable.
TRY_ENQUEUE: Final = """
    SELECT answer.id, answer.created, due.run_at,
           answer.fault, answer.message, answer.hint
    FROM ROWS FROM (
      jsonb_to_recordset(CAST(:requests AS jsonb))
      AS (kind text, payload jsonb, key text, run_at timestamptz, delay_s double precision,
          traceparent text)
    ) WITH ORDINALITY AS request (kind, payload, key, run_at, delay_s, traceparent, position)
    CROSS JOIN LATERAL (
      SELECT coalesce(request.run_at, clock_timestamp() + make_interval(secs => request.delay_s))
        AS run_at
    ) AS due
    CROSS JOIN LATERAL try_enqueue_job(
      request.kind, request.payload, request.key, due.run_at, NULL, request.traceparent
    ) AS answer
    ORDER BY request.position
"""

FIND: Final = """
    SELECT kind, state, result, run_at > clock_timestamp() AS scheduled
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


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job's row, as far as its caller follows it."""

    kind: str
    state: Any
    result: Any
    scheduled: bool
    """Whether its time is still to come."""


def enqueue_in_session(session: "Session", requests: "Sequence[CheckedRequest]") -> list[Enqueued]:
    """Insert jobs in the session's transaction, in one round trip; nothing is committed here.

    Args:
        session: the caller's.
        requests: in order; a key that occurs twice is one job.

    Raises:
        ClientError: one request was refused. The others are in the transaction, which is usable.
    """
    from sqlalchemy import text

    document = f"[{','.join(map(_row, requests))}]"
    rows = session.execute(text(TRY_ENQUEUE), {"requests": document}).all()
    for row in rows:
        if row.fault is not None:
            raise FAULTS.get(row.fault, ClientError)(f"{row.message}: {row.hint}")
    return [Enqueued(str(row.id), row.created, row.run_at) for row in rows]


def find_job(session: "Session", job_id: "UUID") -> JobRow | None:
    """Return a job's row; None if there is none."""
    from sqlalchemy import text

    row = session.execute(text(FIND), {"id": str(job_id)}).one_or_none()
    return None if row is None else JobRow(*row)


def cancel_job(session: "Session", job_id: "UUID", reason: str) -> bool:
    """Cancel a job in the session's transaction; return whether it will never take effect."""
    from sqlalchemy import text

    query = {"id": str(job_id), "reason": reason}
    return bool(session.execute(text(CANCEL), query).scalar_one())


def _row(request: CheckedRequest) -> str:
    """Return the request as a JSON object, with the payload's text as it is."""
    rest = to_json(
        {
            "kind": request.kind,
            "key": request.key,
            "run_at": request.run_at,
            "delay_s": None if request.delay is None else request.delay.total_seconds(),
            "traceparent": request.traceparent,
        }
    ).decode()
    return f'{rest[:-1]},"payload":{request.payload_json}}}'
