"""Batches in PostgreSQL: opened, read and cancelled in a session's transaction.

SQLAlchemy is imported only inside functions: a caller who has a session has it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from .._batch import OnDead
from .._request import Enqueued
from .sql import document_of, raise_refusal, storable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from .._request import CheckedRequest
    from .sql import JobTable

# One statement for the batch and all of its members.
OPEN: Final = """
    SELECT opened.id, opened.created, opened.replaced, opened.run_at, opened.then_id,
           opened.fault, opened.message, opened.hint, opened.queue
    FROM {schema}.try_open_batch(
      CAST(:members AS pg_catalog.jsonb), :then_kind, CAST(:then_payload AS pg_catalog.jsonb),
      :key, :on_dead, NULL, :traceparent, NULL, :then_notify
    ) AS opened
    ORDER BY opened.position
"""

STATUS: Final = """
    SELECT key, state, queued, completed, rejected, dead, cancelled, deleted, opened_at, fired_at,
           cancelled_at, then_id
    FROM {schema}.batch_status(CAST(:id AS pg_catalog.uuid))
"""

CANCEL: Final = """
    SELECT id, redis_id FROM {schema}.cancel_batch(CAST(:id AS pg_catalog.uuid), :reason)
"""


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a batch is."""

    id: UUID
    key: str | None
    state: Literal["open", "held", "fired", "cancelled"]
    """Held: no member is queued, and the batch waits for somebody to retry its dead ones."""
    queued: int
    completed: int
    rejected: int
    dead: int
    cancelled: int
    deleted: int
    """Members that retention has deleted since the batch fired."""
    opened_at: datetime
    fired_at: datetime | None
    cancelled_at: datetime | None
    then_id: UUID | None
    """The job that follows; it exists once the batch has fired."""

    @property
    def members(self) -> int:
        """How many jobs are in it; members may add more while it is open."""
        return self.queued + self.final

    @property
    def final(self) -> int:
        """How many of them have ended."""
        return self.completed + self.rejected + self.dead + self.cancelled + self.deleted


@dataclass(frozen=True, slots=True)
class Opened:
    """What became of a request for a batch."""

    id: UUID
    created: bool
    """False: it was opened before, under the same key."""
    members: "Sequence[Enqueued]"
    """In order; none where the batch was opened before."""


class BatchTable:
    """The batches beside a table of jobs."""

    def __init__(self, jobs: "JobTable") -> None:
        self._jobs = jobs
        self._open = OPEN.format(schema=jobs.schema)
        self._status = STATUS.format(schema=jobs.schema)
        self._cancel = CANCEL.format(schema=jobs.schema)

    def open(
        self,
        session: "Session",
        members: "Sequence[CheckedRequest]",
        then: "CheckedRequest | None",
        key: str | None,
        on_dead: OnDead,
    ) -> Opened:
        """Open a batch in the session's transaction, in one round trip; nothing is committed here.

        Raises:
            ClientError: it or a member was refused. Roll back: the rest is in the transaction.
        """
        from sqlalchemy import text

        query = {
            "members": document_of(members),
            "then_kind": None if then is None else then.kind,
            "then_payload": None if then is None else then.payload_json,
            "then_notify": None if then is None else then.notify,
            "key": key,
            "on_dead": on_dead,
            "traceparent": None if then is None else then.traceparent,
        }
        batch, *rows = session.execute(text(self._open), query).all()
        raise_refusal([batch, *rows])
        if batch.created:
            self._jobs.have_told(session, [row.id for row in rows], members)
        accepted = [
            Enqueued(str(row.id), row.created, row.replaced, row.run_at, row.queue) for row in rows
        ]
        return Opened(batch.id, batch.created, accepted)

    def status(self, session: "Session", batch_id: UUID) -> BatchStatus | None:
        """Return how far a batch is; None if there is none."""
        from sqlalchemy import text

        row = session.execute(text(self._status), {"id": str(batch_id)}).one_or_none()
        return None if row is None else BatchStatus(batch_id, *row)

    def cancel(self, session: "Session", batch_id: UUID, reason: str) -> list[str]:
        """Cancel some members in the session's transaction; return their ids in Redis.

        None are left, or only such as end at this moment, where there are none to return.
        """
        from sqlalchemy import text

        query = {"id": str(batch_id), "reason": storable(reason)}
        rows = session.execute(text(self._cancel), query).all()
        return [row.redis_id or str(row.id) for row in rows]
