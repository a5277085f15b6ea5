"""The relay's queries: which jobs Redis may not have, and what it has been sent.

Every condition goes by `now()` and not by the volatile clock, so that an index bounds the scan. A
row that is leased (`leased_by`, with the end of the lease in `run_at`) is a job that runs from the
record; it is left alone until the lease is over.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

from db.models import NOT_PAUSED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

BEGINNING: Final = (datetime.min.replace(tzinfo=UTC), UUID(int=0))
"""The position before every job."""

SWEEP_LOCK_ID: Final = 7_311_200_001
"""With a queue's name, the advisory lock of the one relay that sweeps this queue."""

SENT_WHOLE_BYTES_MAX: Final = 4_096
"""A larger payload is not sent: the job goes by its id alone, so that a batch has a bounded size.

The worker then reads the payload in the job's row.
"""


@dataclass(frozen=True, slots=True)
class Unsent:
    """A job that the queue should know."""

    id: UUID
    redis_id: str | None
    kind: str
    payload_json: str | None
    """The text of the payload as PostgreSQL writes it; None where it is too large to be sent."""
    run_at: datetime
    enqueued_at: datetime
    queue: str


UNSENT_COLUMNS: Final = f"""jobs.id, jobs.redis_id, jobs.kind,
    CASE WHEN octet_length(jobs.payload::text) <= {SENT_WHOLE_BYTES_MAX}
         THEN jobs.payload::text END,
    jobs.run_at, jobs.enqueued_at, jobs.queue"""
"""What an `Unsent` is read from."""

# Ends with the transaction: behind a pooler, one of the session would stay for ever.
TRY_TO_LEAD = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:queue, :id))")

# SKIP LOCKED: a job that is about to end holds its own row. What was sent long ago is found by the
# later of its two times, so that a job whose time is far off is not read again and again.
TAKE_UNSENT = text(f"""
    WITH fresh AS (
        SELECT id FROM jobs
        WHERE queue = :queue AND state = 'queued' AND dispatched_at IS NULL AND {NOT_PAUSED}
          AND run_at < now() + CAST(:ahead AS interval)
          AND enqueued_at < now() - CAST(:grace AS interval)
          AND (leased_by IS NULL OR run_at <= now()) AND kind <> ALL(:without)
        ORDER BY run_at, id LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), stale AS (
        SELECT id FROM jobs
        WHERE queue = :queue AND state = 'queued' AND dispatched_at IS NOT NULL AND {NOT_PAUSED}
          AND greatest(run_at, dispatched_at) < now() - CAST(:resend_after AS interval)
        ORDER BY greatest(run_at, dispatched_at) LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), unsent AS (
        SELECT id FROM fresh UNION ALL SELECT id FROM stale LIMIT :limit
    )
    UPDATE jobs SET dispatched_at = now(), leased_by = NULL
    FROM unsent WHERE jobs.id = unsent.id
    RETURNING {UNSENT_COLUMNS}
""")  # noqa: S608 - nothing but our own column names

PAGE_OF_QUEUED = text(f"""
    SELECT {UNSENT_COLUMNS} FROM jobs
    WHERE queue = :queue AND state = 'queued' AND run_at < now() + CAST(:ahead AS interval)
      AND {NOT_PAUSED}
      AND (run_at, id) > (:run_at, :id)
      AND (leased_by IS NULL OR run_at <= now())
    ORDER BY run_at, id LIMIT :limit
""")  # noqa: S608 - nothing but our own column names

# A row that is locked, or was marked a moment ago, may be sent once more by a sweep: no harm.
MARK_SENT = text("""
    UPDATE jobs SET dispatched_at = now(), leased_by = NULL
    FROM (
        SELECT id FROM jobs
        WHERE id = ANY(:ids) AND state = 'queued'
          AND (dispatched_at IS NULL OR dispatched_at < now() - CAST(:fresh AS interval))
          AND (leased_by IS NULL OR run_at <= now())
        FOR UPDATE SKIP LOCKED
    ) AS sent
    WHERE jobs.id = sent.id
""")

FORGET_SENT = text(f"""
    WITH later AS (
        SELECT id FROM jobs
        WHERE queue = :queue AND state = 'queued' AND dispatched_at IS NOT NULL AND {NOT_PAUSED}
          AND greatest(run_at, dispatched_at) >= now() + CAST(:ahead AS interval)
        LIMIT :limit
        FOR UPDATE SKIP LOCKED
    ), forgotten AS (
        UPDATE jobs SET dispatched_at = NULL FROM later WHERE jobs.id = later.id RETURNING 1
    )
    SELECT count(*) FROM forgotten
""")  # noqa: S608 - nothing but our own condition


class Dispatch:
    """The jobs of one queue that are to be sent, as one session sees them."""

    def __init__(self, session: "AsyncSession", queue: str) -> None:
        self._session = session
        self._queue = queue

    async def try_to_lead(self) -> bool:
        """Become the queue's one relay that sweeps until the transaction ends; else False."""
        lock = {"queue": self._queue, "id": SWEEP_LOCK_ID}
        return bool(await self._session.scalar(TRY_TO_LEAD, lock))

    async def take_unsent(
        self,
        limit: int,
        *,
        ahead: timedelta,
        grace: timedelta,
        resend_after: timedelta,
        without: "Collection[str]" = (),
    ) -> "Sequence[Unsent]":
        """Mark up to `limit` jobs as sent, and return them: commit only after sending.

        Args:
            limit: rows at most, all locked until the commit.
            ahead: how long before its time a job is sent.
            grace: how long the client that accepted a job is left to send it itself.
            resend_after: when a job that was sent, and could have run since, is sent again.
            without: none of these kinds, unless it was sent before.
        """
        bounds = {
            "queue": self._queue,
            "limit": limit,
            "ahead": ahead,
            "grace": grace,
            "resend_after": resend_after,
            "without": list(without),
        }
        rows = await self._session.execute(TAKE_UNSENT, bounds)
        return [Unsent(*row) for row in rows]

    async def page_of_queued(
        self, after: tuple[datetime, UUID], limit: int, *, ahead: timedelta
    ) -> "Sequence[Unsent]":
        """Return the next queued jobs in order of time, from a position on."""
        run_at, job_id = after
        page = {
            "queue": self._queue,
            "run_at": run_at,
            "id": job_id,
            "limit": limit,
            "ahead": ahead,
        }
        return [Unsent(*row) for row in await self._session.execute(PAGE_OF_QUEUED, page)]

    async def mark_sent(self, ids: "Sequence[UUID]", *, fresh: timedelta) -> None:
        """Note that Redis has these jobs, where that was not noted within the last `fresh`."""
        await self._session.execute(MARK_SENT, {"ids": list(ids), "fresh": fresh})

    async def forget_sent(self, limit: int, *, ahead: timedelta) -> int:
        """Note that Redis no longer has the jobs that are due later than `ahead`.

        So that they are sent when their time is near.

        Returns:
            How many there were; where it is `limit`, there may be more.
        """
        bounds = {"queue": self._queue, "limit": limit, "ahead": ahead}
        forgotten: int = await self._session.scalar(FORGET_SENT, bounds)
        return forgotten
