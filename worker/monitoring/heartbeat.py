"""The heartbeat: keeps this process's row in `workers` fresh, and finds out which servers answer.

Readiness rests on the same small upsert: a PostgreSQL that cannot take it cannot take a job's
outcome either.
"""

import asyncio
import os
import socket
from contextlib import suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

from redis.exceptions import RedisError

from db.errors import diagnose
from db.workers import Beat, Workers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.monitoring.state import WorkerState

INTERVAL_S: Final = 3.0
ANSWER_WAIT_MAX_S: Final = 2.0
"""For PostgreSQL. With the interval, what `/readyz` says is 5 s old at most."""
REDIS_ANSWER_WAIT_MAX_S: Final = 1.5
SILENCE_MAX: Final = timedelta(seconds=15)
"""A process without a heartbeat for so long counts as dead."""
FORGOTTEN_AFTER: Final = timedelta(hours=1)
"""The row of a process without a heartbeat for so long is deleted."""
STOP_WAIT_MAX_S: Final = 1.0


class Heartbeat:
    """One process's heartbeat: a background duty that is repeated for as long as it runs."""

    name = "heartbeat"
    step_timeout_s = 8.0

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        state: "WorkerState",
        kinds: "Sequence[str]",
        redis_answers: "Callable[[], Awaitable[bool]]",
        worker_id: UUID | None = None,
    ) -> None:
        self.worker_id = worker_id or uuid4()
        self._sessions = sessions
        self._state = state
        self._kinds = sorted(kinds)
        self._redis_answers = redis_answers
        self._version = code_version()
        self._began = False

    async def step(self) -> float:
        """Beat once, and return the seconds until the next beat.

        Raises:
            Exception: PostgreSQL did not take it; the process is unready until it does.
        """
        self._state.redis_up = await self._redis_answers()
        try:
            async with asyncio.timeout(ANSWER_WAIT_MAX_S):
                await self._beat("draining" if self._state.draining else "running")
        except Exception as error:
            self._state.postgres_failed(diagnose(error).trouble.value)
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
        )
        async with self._sessions() as session, session.begin():
            workers = Workers(session)
            await workers.beat(beat)
            await workers.forget(FORGOTTEN_AFTER)


async def answers_ping(redis: "Redis") -> bool:
    """Return whether Redis answers a ping, in time."""
    try:
        async with asyncio.timeout(REDIS_ANSWER_WAIT_MAX_S):
            await redis.ping()
    except (RedisError, OSError):
        return False
    return True


def code_version() -> str:
    """Return the version of this code: the image's, the distribution's, or `dev`."""
    if stamped := os.environ.get("TELLER_VERSION"):
        return stamped
    try:
        return version("teller")
    except PackageNotFoundError:
        return "dev"
