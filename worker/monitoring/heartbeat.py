"""The heartbeat: keeps this process's row in `workers` fresh, and finds out which servers answer.

Readiness rests on the same small upsert: a PostgreSQL that cannot take it cannot take a job's
outcome either. It also looks at what every job needs: this schema, and the right to write jobs.
"""

import asyncio
import os
import socket
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final
from uuid import uuid4

from db.migrate import serves
from db.workers import Beat, Workers
from worker.monitoring.servers import (
    PRIVILEGES_MISSING,
    SCHEMA_OUTDATED,
    NotServingError,
    postgres_trouble,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.monitoring.events import Events
    from worker.monitoring.state import WorkerState

INTERVAL_S: Final = 3.0
ANSWER_WAIT_MAX_S: Final = 2.0
"""For PostgreSQL. With the interval, what `/readyz` says is 5 s old at most."""
SILENCE_MAX: Final = timedelta(seconds=15)
"""A process without a heartbeat for so long counts as dead."""
FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""The row of a process without a heartbeat for so long is deleted."""
STOP_WAIT_MAX_S: Final = 1.0


class Heartbeat:
    """One process's heartbeat: a background duty that is repeated for as long as it runs."""

    name = "heartbeat"
    step_timeout_s = 8.0

    def __init__(  # noqa: PLR0913 - what it looks at and tells, each by name
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        state: "WorkerState",
        kinds: "Sequence[str]",
        redis_trouble: "Callable[[], Awaitable[str | None]]",
        *,
        events: "Events",
        queue_key: str,
        queues: "Sequence[str]",
    ) -> None:
        self.worker_id = uuid4()
        self._sessions = sessions
        self._state = state
        self._kinds = sorted(kinds)
        self._redis_trouble = redis_trouble
        self._events = events
        self._queue_key = queue_key
        self._queues = list(queues)
        self._version = code_version()
        self._began = False

    async def step(self) -> float:
        """Beat once, and return the seconds until the next beat.

        Raises:
            Exception: PostgreSQL did not take it; the process is unready until it does.
        """
        self._note_redis(await self._redis_trouble())
        try:
            async with asyncio.timeout(ANSWER_WAIT_MAX_S):
                await self._beat("draining" if self._state.draining else "running")
        except Exception as error:
            self._state.postgres_failed(postgres_trouble(error))
            raise
        self._state.postgres_answered()
        self._began = True
        return INTERVAL_S

    async def stop(self) -> None:
        """Mark this worker as stopped; skipped when PostgreSQL does not answer."""
        if not self._began:
            return
        with suppress(Exception):
            async with asyncio.timeout(STOP_WAIT_MAX_S):
                await self._beat("stopped")

    def _note_redis(self, trouble: str | None) -> None:
        if trouble != self._state.redis_trouble and trouble is not None:
            self._events.emit("redis.trouble", trouble=trouble)
        self._state.redis_trouble = trouble

    async def _beat(self, state: str) -> None:
        beat = Beat(
            id=self.worker_id,
            host=socket.gethostname(),
            pid=os.getpid(),
            version=self._version,
            kinds=self._kinds,
            state=state,
            mode=self._state.mode,
            jobs_running=self._state.jobs_running,
            queue_key=self._queue_key,
            queues=self._queues,
        )
        async with self._sessions() as session, session.begin():
            workers = Workers(session)
            await workers.beat(beat)
            await workers.forget(FORGOTTEN_AFTER)
            readiness = await workers.readiness()
        if not readiness.may_write_jobs:
            raise NotServingError(PRIVILEGES_MISSING)
        if not serves(readiness.revision):
            raise NotServingError(SCHEMA_OUTDATED)


def code_version() -> str:
    """Return the version of this code: the image's, the distribution's, or `dev`."""
    if stamped := os.environ.get("TELLER_VERSION"):
        return stamped
    try:
        return version("teller")
    except PackageNotFoundError:
        return "dev"
