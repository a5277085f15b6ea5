"""What is still to be sent to the queue: the relay's queries."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

BEGINNING: Final = (datetime.min.replace(tzinfo=UTC), UUID(int=0))


@dataclass(frozen=True, slots=True)
class Unsent:
    """A job that the queue should know."""

    id: UUID
    redis_id: str | None
    kind: str
    payload: Any
    run_at: datetime
    enqueued_at: datetime


@dataclass(frozen=True, slots=True)
class Runnable:
    """A job that is due."""

    id: UUID
    redis_id: str | None
    kind: str
    attempts: int

    @property
    def delivery_id(self) -> str:
        """The id under which workers know the job."""
        return self.redis_id or str(self.id)


_COLUMNS = "id, redis_id, kind, payload, run_at, enqueued_at"

# SKIP LOCKED: several relays share the work; a job that runs from the record holds its own row.
TAKE_UNSENT = text(f"""
    WITH unsent AS (
        SELECT id FROM jobs
        WHERE state = 'queued' AND run_at < clock_timestamp() + CAST(:ahead AS interval)
          AND (CASE WHEN dispatched_at IS NULL
                    THEN enqueued_at < clock_timestamp() - CAST(:grace AS interval)
                    ELSE dispatched_at < clock_timestamp() - CAST(:resend_after AS interval) END)
        ORDER BY run_at, id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    )
    UPDATE jobs SET dispatched_at = clock_timestamp()
    FROM unsent WHERE jobs.id = unsent.id
    RETURNING {", ".join(f"jobs.{column}" for column in _COLUMNS.split(", "))}
""")  # noqa: S608 - nothing but our own column names

PAGE_OF_QUEUED = text(f"""
    SELECT {_COLUMNS} FROM jobs
    WHERE state = 'queued' AND run_at < clock_timestamp() + CAST(:ahead AS interval)
      AND (run_at, id) > (:run_at, :id)
    ORDER BY run_at, id LIMIT :limit
""")  # noqa: S608 - nothing but our own column names

# Locked for this look alone: jobs that run elsewhere hold their rows, and are stepped over.
PEEK_RUNNABLE = text("""
    SELECT id, redis_id, kind, attempts FROM jobs
    WHERE state = 'queued' AND run_at <= clock_timestamp()
    ORDER BY run_at, id LIMIT :limit
    FOR UPDATE SKIP LOCKED
""")


class Dispatch:
    """The jobs to be sent, as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def take_unsent(
        self, limit: int, *, ahead: timedelta, grace: timedelta, resend_after: timedelta
    ) -> "Sequence[Unsent]":
        """Mark up to `limit` jobs as sent, and return them: commit only after sending.

        Args:
            limit: rows at most, all locked until the commit.
            ahead: how long before its time a job is sent.
            grace: how long the client that accepted a job is left to ring for it itself.
            resend_after: when a job that is still queued is sent again.
        """
        bounds = {"limit": limit, "ahead": ahead, "grace": grace, "resend_after": resend_after}
        rows = await self._session.execute(TAKE_UNSENT, bounds)
        return [Unsent(*row) for row in rows]

    async def page_of_queued(
        self, after: tuple[datetime, UUID], limit: int, *, ahead: timedelta
    ) -> "Sequence[Unsent]":
        """Return the next queued jobs in order of time, from a position on."""
        run_at, job_id = after
        page = {"run_at": run_at, "id": job_id, "limit": limit, "ahead": ahead}
        return [Unsent(*row) for row in await self._session.execute(PAGE_OF_QUEUED, page)]

    async def peek_runnable(self, limit: int) -> "Sequence[Runnable]":
        """Return due jobs that nobody runs; the caller's transaction must end at once."""
        rows = await self._session.execute(PEEK_RUNNABLE, {"limit": limit})
        return [Runnable(*row) for row in rows]
