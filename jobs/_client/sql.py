"""Jobs through PostgreSQL: accepted, found and cancelled in a session's transaction.

SQLAlchemy is imported only inside functions: a caller who has a session has it.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from .._errors import (
    ClientError,
    InvalidKeyError,
    InvalidPayloadError,
    InvalidTimeError,
    KeyConflictError,
    OtherBatchError,
    UnknownEndpointError,
    UnknownKindError,
)
from .._request import CheckedRequest, Enqueued

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy import Row
    from sqlalchemy.orm import Session

SCHEMA: Final = "public"
"""Where Teller's tables and functions are, unless TELLER_SCHEMA says another."""
_SCHEMA_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")

# The caller's session may have any search_path, so every name in these statements has its schema.

# One statement for one job or thousands. `try_enqueue_job` returns a refusal instead of raising it,
# which leaves the caller's transaction usable.
TRY_ENQUEUE: Final = """
    SELECT answer.id, answer.created, answer.replaced, due.run_at, answer.queue,
           answer.fault, answer.message, answer.hint
    FROM ROWS FROM (
      pg_catalog.jsonb_to_recordset(CAST(:requests AS pg_catalog.jsonb))
      AS (kind pg_catalog.text, payload pg_catalog.jsonb, key pg_catalog.text,
          run_at pg_catalog.timestamptz, delay pg_catalog.float8, traceparent pg_catalog.text)
    ) WITH ORDINALITY AS request (kind, payload, key, run_at, delay, traceparent, position)
    CROSS JOIN LATERAL (
      SELECT coalesce(
        request.run_at,
        pg_catalog.clock_timestamp()
          OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => request.delay)
      ) AS run_at
    ) AS due
    CROSS JOIN LATERAL {schema}.try_enqueue_job(
      request.kind, request.payload, request.key, due.run_at, NULL, request.traceparent
    ) AS answer
    ORDER BY request.position
"""

FIND: Final = """
    SELECT kind, state, result,
           run_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() AS scheduled
    FROM {schema}.jobs WHERE id OPERATOR(pg_catalog.=) CAST(:id AS pg_catalog.uuid)
"""

# An unknown endpoint is told by a NULL, which leaves the caller's transaction usable.
NOTIFY: Final = """
    SELECT asked.endpoint,
           CASE WHEN known.name IS NOT NULL
                THEN {schema}.notify_end(asked.job_id, asked.endpoint) END AS is_noted
    FROM pg_catalog.jsonb_to_recordset(CAST(:asked AS pg_catalog.jsonb))
      AS asked (job_id pg_catalog.uuid, endpoint pg_catalog.text)
    LEFT JOIN {schema}.webhook_endpoints AS known
      ON known.name OPERATOR(pg_catalog.=) asked.endpoint
"""

CANCEL: Final = "SELECT {schema}.cancel_job(CAST(:id AS pg_catalog.uuid), :reason)"

REASON_CHARACTERS_MAX: Final = 500
"""The same as in `cancel_job`."""

FAULTS: Final[dict[str, type[ClientError]]] = {
    "TL001": UnknownKindError,
    "TL002": InvalidPayloadError,
    "TL003": KeyConflictError,
    "TL004": InvalidKeyError,
    "TL005": InvalidTimeError,
    "TL006": UnknownEndpointError,
    "TL007": OtherBatchError,
}


@dataclass(frozen=True, slots=True)
class JobRow:
    """A job's row, as far as its caller follows it."""

    kind: str
    state: Any
    result: Any
    scheduled: bool
    """Whether its time is still to come."""


def checked_schema(schema: str) -> str:
    """Return the name of a schema.

    Raises:
        ValueError: no schema may have such a name here.
    """
    if _SCHEMA_NAME.fullmatch(schema) is None:
        raise ValueError(
            "schema is lower-case letters, digits and _, as in the worker's TELLER_SCHEMA"
        )
    return schema


class JobTable:
    """Teller's tables and functions in one schema, for any session of their database."""

    def __init__(self, schema: str = SCHEMA) -> None:
        """Prepare the statements.

        Raises:
            ValueError: no schema may have such a name here.
        """
        self.schema = checked_schema(schema)
        self._try_enqueue = TRY_ENQUEUE.format(schema=schema)
        self._find = FIND.format(schema=schema)
        self._notify = NOTIFY.format(schema=schema)
        self._cancel = CANCEL.format(schema=schema)

    def enqueue(self, session: "Session", requests: "Sequence[CheckedRequest]") -> list[Enqueued]:
        """Insert jobs in the session's transaction, in one round trip; nothing is committed here.

        Args:
            session: the caller's.
            requests: in order; a key that occurs twice is one job.

        Raises:
            ClientError: one request was refused. The others are in the transaction, which is
                usable.
        """
        from sqlalchemy import text

        query = {"requests": document_of(requests)}
        rows = session.execute(text(self._try_enqueue), query).all()
        raise_refusal(rows)
        self.have_told(session, [row.id for row in rows], requests)
        return [
            Enqueued(str(row.id), row.created, row.replaced, row.run_at, row.queue) for row in rows
        ]

    def have_told(
        self, session: "Session", ids: "Sequence[UUID]", requests: "Sequence[CheckedRequest]"
    ) -> None:
        """Have the endpoints that the requests name hear of the jobs' ends."""
        from sqlalchemy import text

        asked = [
            {"job_id": str(job_id), "endpoint": request.notify}
            for job_id, request in zip(ids, requests, strict=True)
            if request.notify is not None
        ]
        if not asked:
            return
        for row in session.execute(text(self._notify), {"asked": to_json(asked).decode()}).all():
            if row.is_noted is None:
                raise UnknownEndpointError(
                    f"unknown webhook endpoint {row.endpoint[:100]!r}: add it with "
                    "`python -m worker webhooks add NAME URL`"
                )

    def find(self, session: "Session", job_id: "UUID") -> JobRow | None:
        """Return a job's row; None if there is none."""
        from sqlalchemy import text

        row = session.execute(text(self._find), {"id": str(job_id)}).one_or_none()
        return None if row is None else JobRow(*row)

    def cancel(self, session: "Session", job_id: "UUID", reason: str) -> bool:
        """Cancel a job in the session's transaction; return whether it will never take effect."""
        from sqlalchemy import text

        query = {"id": str(job_id), "reason": storable(reason)}
        return bool(session.execute(text(self._cancel), query).scalar_one())


def raise_refusal(rows: "Sequence[Row[Any]]") -> None:
    """Raise what the first of these answers refuses, if one does."""
    for row in rows:
        if row.fault is not None:
            raise FAULTS.get(row.fault, ClientError)(f"{row.message}: {row.hint}")


def storable(reason: str) -> str:
    """Return a reason as PostgreSQL can store it, cut at `REASON_CHARACTERS_MAX`."""
    cut = reason[:REASON_CHARACTERS_MAX].replace("\x00", "\ufffd")
    return cut.encode("utf-8", "replace").decode()


def document_of(requests: "Sequence[CheckedRequest]") -> str:
    """Return requests as one JSON array, in their order."""
    return f"[{','.join(map(_row, requests))}]"


def _row(request: CheckedRequest) -> str:
    """Return the request as a JSON object, with the payload's text as it is."""
    rest = to_json(
        {
            "kind": request.kind,
            "key": request.key,
            "run_at": request.run_at,
            "delay": None if request.delay is None else request.delay.total_seconds(),
            "traceparent": request.traceparent,
        }
    ).decode()
    return f'{rest[:-1]},"payload":{request.payload_json}}}'
