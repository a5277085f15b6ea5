"""Queued jobs are cancelled: in PostgreSQL first, then Redis stops those that run."""

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final
from uuid import UUID

from db.operations import Filter, cancel_batch, cancel_these
from jobs._wire import abort
from worker.desk.acts.best_effort import best_effort

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

BATCH: Final = 500


class Canceller:
    """Cancels jobs that have not taken effect."""

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        redis: "Redis",
        queue_name: str,
        reason: str,
    ) -> None:
        self._sessions = sessions
        self._redis = redis
        self._queue_name = queue_name
        self._reason = reason

    async def these(self, ids: Sequence[UUID]) -> list[UUID]:
        """Cancel jobs by id; return those that had not ended."""
        async with self._sessions() as session, session.begin():
            cancelled = await cancel_these(session, ids, self._reason)
        await best_effort(abort(self._redis, cancelled.values(), self._queue_name))
        return list(cancelled)

    async def all_of(self, which: Filter) -> AsyncIterator[int]:
        """Cancel every queued job that a filter matches; yield how many in each batch."""
        while True:
            async with self._sessions() as session, session.begin():
                cancelled = await cancel_batch(session, which, self._reason, limit=BATCH)
            if not cancelled:
                return
            await best_effort(abort(self._redis, cancelled.values(), self._queue_name))
            yield len(cancelled)
