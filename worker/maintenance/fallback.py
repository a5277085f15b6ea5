"""Degraded mode: while Redis is away, jobs are claimed straight from the record.

A job's own transaction holds its row, so no two workers run it at once, and the row is free again
the moment a worker dies. Nothing is written to say who runs what: there is nothing to clean up.
"""

from typing import TYPE_CHECKING, Final

from db.dispatch import Dispatch
from worker.execution import serializer as wire

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.execution.arq_adapter import TellerWorker
    from worker.monitoring.events import Events

LOOK_FOR_LOSS_EVERY_S: Final = 0.2
BUSY_PAUSE_S: Final = 0.02
IDLE_PAUSE_S: Final = 0.25


class Fallback:
    """One process's way of working without Redis; a duty like the others."""

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

    @property
    def degraded(self) -> bool:
        """Whether jobs come from the record at the moment."""
        return self._degraded

    async def step(self) -> float:
        """Fill the free slots from the record if Redis is away; return the pause in seconds."""
        self._notice(lost=not self._worker.connection.available)
        if not self._degraded:
            return LOOK_FOR_LOSS_EVERY_S
        started = await self.fill_slots()
        return BUSY_PAUSE_S if started else IDLE_PAUSE_S

    async def fill_slots(self) -> int:
        """Start as many due jobs as there are free slots, and return how many."""
        free = self._worker.free_slots if self._worker.allow_pick_jobs else 0
        if free < 1:
            return 0
        async with self._sessions() as session:
            jobs = await Dispatch(session).peek_runnable(free)
        running = self._worker.tasks
        fresh = [job for job in jobs if job.delivery_id not in running]
        for job in fresh:
            self._worker.run_local(
                job.delivery_id, wire.FROM_RECORD, [job.kind], job_try=job.attempts + 1
            )
        return len(fresh)

    def _notice(self, *, lost: bool) -> None:
        if lost != self._degraded:
            self._degraded = lost
            self._events.emit("redis.lost" if lost else "redis.back")
