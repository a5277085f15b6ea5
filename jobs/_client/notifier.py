"""Rings Redis after a commit. A ring is a courtesy: if it is lost, the relay sends the job."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from .._parse import payload_json
from .._wire import QueuedJob, put, queued_job

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from redis.asyncio import Redis

    from .sql import Wish

logger = logging.getLogger("jobs.client")

RING_TIMEOUT_S: Final = 5.0
WAITING_MAX: Final = 10_000
"""Rings that wait for a slow Redis; beyond that the relay is the better messenger."""


class Ringer:
    """Rings from one event loop: while a ring is under way, the next ones gather into one."""

    def __init__(self, redis: "Redis", queue_name: str) -> None:
        self._redis = redis
        self._queue_name = queue_name
        self._waiting: list[tuple[UUID, Wish]] = []
        self._sender: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def at_home(self) -> None:
        """Remember the event loop that Redis belongs to."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()

    def ring_soon(self, jobs: "list[tuple[UUID, Wish]]") -> None:
        """Ring from any thread; never waits, never raises."""
        here = _running_loop()
        home = self._loop or here
        if home is None or not home.is_running():
            return
        if home is here:
            self._add(jobs)
            return
        try:
            home.call_soon_threadsafe(self._add, jobs)
        except RuntimeError:
            logger.debug("the event loop has just closed: the relay rings")

    async def flush(self) -> None:
        """Wait until everything that was handed over is rung or given up."""
        while self._sender is not None:
            await asyncio.wait({self._sender})

    def _add(self, jobs: "list[tuple[UUID, Wish]]") -> None:
        self._waiting += jobs[: WAITING_MAX - len(self._waiting)]
        if self._sender is None:
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        try:
            while self._waiting:
                jobs, self._waiting = self._waiting, []
                async with asyncio.timeout(RING_TIMEOUT_S):
                    await put(self._redis, _queued(jobs), self._queue_name)
        except Exception as error:  # noqa: BLE001 - whatever it was, the job is in the record
            self._waiting.clear()
            logger.warning("could not ring redis (%s): the relay will", type(error).__name__)
        finally:
            self._sender = None


def _queued(jobs: "Iterable[tuple[UUID, Wish]]") -> list[QueuedJob]:
    return [
        queued_job(str(job_id), wish.payload.kind, payload_json(wish.payload), wish.run_at)
        for job_id, wish in jobs
    ]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
