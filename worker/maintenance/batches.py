"""Fires batches: looks for those without a queued member, and enqueues the job that follows.

Nobody counts members down, so nothing can be lost that the next look would not see. Several workers
may look at once: the batch's row decides, and the key of the job that follows.
"""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from db.batches import Batches
from jobs._wire import put
from worker.maintenance.relay import queued_jobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from db.batches import Fired
    from worker.monitoring.events import Events

FIRED_MAX: Final = 100
"""Batches in one transaction."""
IDLE_PAUSE_S: Final = 1.0
OPEN_PAUSE_S: Final = 0.25
"""Between two looks while a batch is open."""
LOOKING_PART_MAX: Final = 0.25
"""Of its time: where very many batches are open, a look takes long, and the next comes later."""
RING_TIMEOUT_S: Final = 2.0


class BatchWatch:
    """One process's look at the open batches, a background duty."""

    name = "batches"
    step_timeout_s = 30.0

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        redis: "Redis",
        queue_name: str,
        events: "Events",
    ) -> None:
        self._sessions = sessions
        self._redis = redis
        self._queue_name = queue_name
        self._events = events

    async def step(self) -> float:
        """Fire what is over; return the seconds until the next look."""
        began = time.monotonic()
        async with self._sessions() as session, session.begin():
            batches = Batches(session)
            if not await batches.try_to_lead():
                return IDLE_PAUSE_S
            fired = await batches.fire(FIRED_MAX)
            any_open = await batches.any_open()
        for batch in fired:
            self._tell(batch)
        await self._ring(fired)
        if len(fired) == FIRED_MAX:
            return 0.0
        took_s = time.monotonic() - began
        return max(OPEN_PAUSE_S if any_open else IDLE_PAUSE_S, took_s / LOOKING_PART_MAX)

    def _tell(self, batch: "Fired") -> None:
        self._events.emit(
            "batch.fired",
            batch_id=str(batch.id),
            job_id=None if batch.then is None else str(batch.then.id),
            members=sum(batch.counts.values()),
            dead=batch.counts.get("dead", 0),
            open_s=round((batch.fired_at - batch.opened_at).total_seconds(), 3),
        )

    async def _ring(self, fired: "Sequence[Fired]") -> None:
        """Send the jobs that follow; without Redis, or where this is lost, the relay does."""
        jobs = queued_jobs([batch.then for batch in fired if batch.then is not None])
        with suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout(RING_TIMEOUT_S):
                await put(self._redis, jobs, self._queue_name)
