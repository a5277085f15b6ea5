"""Dead jobs run again: PostgreSQL is changed first, then Redis."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

from db.dispatch import Unsent
from db.operations import Filter, clock, replay_batch, replay_these
from jobs._wire import put, result_key
from worker.desk.acts.best_effort import best_effort
from worker.maintenance.relay import queued_jobs

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

BATCH: Final = 500


class Replayer:
    """Puts dead jobs back into the queue."""

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        redis: "Redis",
        queue_name: str,
        by: str,
    ) -> None:
        self._sessions = sessions
        self._redis = redis
        self._queue_name = queue_name
        self._note = f"put back by {by}"

    async def these(self, ids: Sequence[UUID]) -> list[UUID]:
        """Replay jobs by id; return those that were dead."""
        async with self._sessions() as session, session.begin():
            jobs = await replay_these(session, ids, self._note)
        await best_effort(self._send(jobs))
        return [job.id for job in jobs]

    async def all_of(self, which: Filter) -> AsyncIterator[int]:
        """Replay every dead job that a filter matches; yield how many in each batch."""
        async with self._sessions() as session:
            until = await clock(session)
        while True:
            async with self._sessions() as session, session.begin():
                jobs = await replay_batch(session, which, self._note, until=until, limit=BATCH)
            if not jobs:
                return
            await best_effort(self._send(jobs))
            yield len(jobs)

    async def _send(self, jobs: Sequence[Unsent]) -> None:
        """Delete the results of the first end from Redis, and enqueue the jobs."""
        queued = queued_jobs(jobs)
        if queued:
            await self._redis.delete(*(result_key(job.id) for job in queued))
            await put(self._redis, queued, self._queue_name)
