"""Degraded mode: while Redis does not answer, jobs are claimed from PostgreSQL.

The transaction of a job holds a lock on the job's row, so no two workers run it at once, and the
lock ends the moment that a worker dies. No claim is written down: there is nothing to clean up.
"""

from typing import TYPE_CHECKING, Final

from db.dispatch import Dispatch
from worker.execution import serializer as wire

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.execution.arq_adapter import TellerWorker
    from worker.monitoring.events import Events

CHECK_PAUSE_S: Final = 0.2
"""Between two looks at the connection to Redis, while it is there."""
BUSY_PAUSE_S: Final = 0.02
IDLE_PAUSE_S: Final = 0.25
"""Between two looks for due jobs, where the last one found some, or none."""


class Fallback:
    """Claims jobs for one process while there is no Redis: a background duty."""

    name = "fallback"

    def __init__(
        self,
        worker: "TellerWorker",
        sessions: "async_sessionmaker[AsyncSession]",
        events: "Events",
    ) -> None:
        self._worker = worker
        self._sessions = sessions
        self._events = events
        self._degraded = False

    async def step(self) -> float:
        """Fill the free slots with due jobs if there is no Redis; return the pause in seconds."""
        self._report(lost=not self._worker.connection.available)
        if not self._degraded:
            return CHECK_PAUSE_S
        started = await self._fill_slots()
        return BUSY_PAUSE_S if started else IDLE_PAUSE_S

    async def _fill_slots(self) -> int:
        """Start as many due jobs as there are free slots, and return how many."""
        free = self._worker.free_slots if self._worker.allow_pick_jobs else 0
        if free < 1:
            return 0
        async with self._sessions() as session:
            jobs = await Dispatch(session).peek_runnable(free)
        running = self._worker.tasks
        startable = [job for job in jobs if job.delivery_id not in running]
        for job in startable:
            self._worker.run_local(
                job.delivery_id, wire.FROM_RECORD, [job.kind], job_try=job.attempts + 1
            )
        return len(startable)

    def _report(self, *, lost: bool) -> None:
        """Emit an event where Redis was lost, or came back, since the last step."""
        if lost != self._degraded:
            self._degraded = lost
            self._events.emit("redis.lost" if lost else "redis.back")
