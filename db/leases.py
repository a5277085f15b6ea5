"""Leases: jobs that a worker runs from their rows, because Redis is away.

A lease is `leased_by`, with its end in `run_at`. It is committed before the job runs and renewed
while it runs, so a delay, a retry and a lease are one thing to everybody who looks for work: a job
whose time has not come. `crashes` counts the leases that did not end: a claim raises it, and any
end of a run sets it back.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from sqlalchemy import text

from db.models import NOT_PAUSED

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

# Redis is not known to have what is leased: once the lease is over, the relay sends it.
_LEASE = """
    UPDATE jobs
    SET run_at = now() + CAST(:lease AS interval), leased_by = :worker, crashes = crashes + 1,
        dispatched_at = NULL
"""


def _claim(condition: str) -> str:
    return f"""
        WITH due AS (
            SELECT id FROM jobs
            WHERE state = 'queued' AND run_at <= now() AND {NOT_PAUSED} AND {condition}
              AND kind <> ALL(:without)
            ORDER BY run_at, id LIMIT :limit
            FOR UPDATE SKIP LOCKED
        )
        {_LEASE} FROM due WHERE jobs.id = due.id
        RETURNING jobs.id, jobs.redis_id, jobs.kind, jobs.queue, jobs.attempts, jobs.crashes - 1
    """  # noqa: S608 - conditions of our own


# One queue at a time, whose index then has the order.
CLAIM = text(_claim("queue = :queue AND crashes = 0"))
CLAIM_UNSENT = text(_claim("queue = :queue AND crashes = 0 AND dispatched_at IS NULL"))
CLAIM_SUSPECT = text(_claim("queue = ANY(:queues) AND crashes > 0"))
CLAIM_UNSENT_SUSPECT = text(
    _claim("queue = ANY(:queues) AND crashes > 0 AND dispatched_at IS NULL")
)

SUSPECT_IS_DUE = text(f"""
    SELECT EXISTS (
      SELECT FROM jobs
      WHERE queue = ANY(:queues) AND state = 'queued' AND crashes > 0 AND run_at <= now()
        AND {NOT_PAUSED} AND kind <> ALL(:without)
    )
""")  # noqa: S608 - a condition of our own

LEASE_RUNNING = text(f"""
    WITH running AS (
        SELECT id FROM jobs
        WHERE id = ANY(:ids) AND state = 'queued' AND (leased_by IS NULL OR run_at <= now())
        FOR UPDATE SKIP LOCKED
    )
    {_LEASE} FROM running WHERE jobs.id = running.id
""")  # noqa: S608 - our own text

# A row that is locked is about to change its state.
RENEW = text("""
    UPDATE jobs SET run_at = now() + CAST(:lease AS interval)
    FROM (
        SELECT id FROM jobs WHERE id = ANY(:ids) AND leased_by = :worker AND state = 'queued'
        FOR UPDATE SKIP LOCKED
    ) AS held
    WHERE jobs.id = held.id
""")

RELEASE = text("""
    UPDATE jobs
    SET leased_by = NULL, crashes = released.crashes,
        run_at = coalesce(now() + released.delay, jobs.run_at)
    FROM unnest(CAST(:ids AS uuid[]), CAST(:delays AS interval[]), CAST(:crashes AS integer[]))
         AS released (id, delay, crashes)
    WHERE jobs.id = released.id AND jobs.leased_by = :worker AND jobs.state = 'queued'
""")

# Only where Redis was away a moment ago: another worker may still run a job that Redis gives out.
LEFT_ELSEWHERE = text("""
    SELECT run_at - now() FROM jobs
    WHERE id = :id AND state = 'queued' AND leased_by <> :worker AND run_at > now()
""")


@dataclass(frozen=True, slots=True)
class Leased:
    """A job that was due, and is this worker's from now on."""

    id: UUID
    redis_id: str | None
    kind: str
    queue: str
    attempts: int
    crashes: int
    """How many leases of it before this one did not end."""

    @property
    def delivery_id(self) -> str:
        """The id under which workers know the job."""
        return self.redis_id or str(self.id)


@dataclass(frozen=True, slots=True)
class Release:
    """The end of a lease."""

    id: UUID
    delay: timedelta | None = None
    """Until the job is due again; None where the row says so already."""
    crashes: int = 0
    """What its row counts from now on."""


class Leases:
    """One worker's leases, as one session sees them."""

    def __init__(self, session: "AsyncSession", worker: str) -> None:
        self._session = session
        self._worker = worker

    async def claim(
        self,
        queue: str,
        limit: int,
        lease: timedelta,
        *,
        unsent: bool,
        without: "Collection[str]" = (),
    ) -> "Sequence[Leased]":
        """Lease up to `limit` due jobs of a queue, oldest first: commit before they run.

        Args:
            queue: its name.
            limit: jobs at most.
            lease: how long, unless renewed.
            unsent: only those that Redis was never sent.
            without: none of these kinds.
        """
        statement = CLAIM_UNSENT if unsent else CLAIM
        bounds = {
            "queue": queue,
            "limit": limit,
            "lease": lease,
            "worker": self._worker,
            "without": list(without),
        }
        return [Leased(*row) for row in await self._session.execute(statement, bounds)]

    async def claim_suspect(
        self,
        queues: "Sequence[str]",
        lease: timedelta,
        *,
        unsent: bool,
        without: "Collection[str]" = (),
    ) -> "Sequence[Leased]":
        """Lease the oldest due job of these queues under which a process died, if there is one."""
        statement = CLAIM_UNSENT_SUSPECT if unsent else CLAIM_SUSPECT
        bounds = {
            "queues": list(queues),
            "limit": 1,
            "lease": lease,
            "worker": self._worker,
            "without": list(without),
        }
        return [Leased(*row) for row in await self._session.execute(statement, bounds)]

    async def suspect_is_due(
        self, queues: "Sequence[str]", *, without: "Collection[str]" = ()
    ) -> bool:
        """Return whether these queues have a due job under which a process died."""
        bounds = {"queues": list(queues), "without": list(without)}
        return bool(await self._session.scalar(SUSPECT_IS_DUE, bounds))

    async def lease_running(self, ids: "Collection[UUID]", lease: timedelta) -> None:
        """Lease jobs that this worker runs already, but for those that another one has."""
        bounds = {"ids": list(ids), "lease": lease, "worker": self._worker}
        await self._session.execute(LEASE_RUNNING, bounds)

    async def renew(self, ids: "Collection[UUID]", lease: timedelta) -> None:
        """Extend leases of this worker, as far as it still has them."""
        bounds = {"ids": list(ids), "lease": lease, "worker": self._worker}
        await self._session.execute(RENEW, bounds)

    async def release(self, ended: "Sequence[Release]") -> None:
        """End leases of this worker, as far as it still has them and their jobs are queued."""
        columns = {
            "ids": [one.id for one in ended],
            "delays": [one.delay for one in ended],
            "crashes": [one.crashes for one in ended],
        }
        await self._session.execute(RELEASE, {**columns, "worker": self._worker})

    async def left_elsewhere(self, job_id: UUID) -> timedelta | None:
        """Return how long another worker's lease of this job goes on; None where there is none."""
        left: timedelta | None = await self._session.scalar(
            LEFT_ELSEWHERE, {"id": job_id, "worker": self._worker}
        )
        return left
