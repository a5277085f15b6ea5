"""Rings Redis after a commit. A ring is best effort: if it is lost, the relay sends the job."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from .._wire import put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from .._wire import QueuedJob

logger = logging.getLogger("jobs.client")

RING_TIMEOUT_S: Final = 5.0
WAITING_MAX: Final = 10_000
"""Jobs that wait for a slow Redis; any more are left to the relay."""


class Ringer:
    """Rings from one event loop: while a ring is under way, the next ones gather into one."""

    def __init__(self, redis: "Redis", queue_name: str) -> None:
        self._redis = redis
        self._queue_name = queue_name
        self._waiting: list[QueuedJob] = []
        self._sender: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def remember_loop(self) -> None:
        """Remember the running event loop as the one that Redis belongs to."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()

    def ring_soon(self, jobs: "Sequence[QueuedJob]") -> None:
        """Send jobs and wake a worker, from any thread; never waits, never raises."""
        running = _running_loop()
        loop = self._loop or running
        if loop is None or not loop.is_running():
            return
        if loop is running:
            self._add(jobs)
            return
        try:
            loop.call_soon_threadsafe(self._add, jobs)
        except RuntimeError:
            logger.debug("the event loop has just closed: the relay rings")

    async def flush(self) -> None:
        """Wait until every job that was given is sent, or left to the relay."""
        while self._sender is not None:
            await asyncio.wait({self._sender})

    def _add(self, jobs: "Sequence[QueuedJob]") -> None:
        self._waiting += jobs[: WAITING_MAX - len(self._waiting)]
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                jobs, self._waiting = self._waiting, []
                async with asyncio.timeout(RING_TIMEOUT_S):
                    await put(self._redis, jobs, self._queue_name)
        except Exception as error:  # noqa: BLE001 - whatever it was, PostgreSQL has the jobs
            self._waiting.clear()
            logger.warning("could not ring redis (%s): the relay will", type(error).__name__)
        finally:
            self._sender = None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
