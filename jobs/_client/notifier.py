"""Rings Redis after a commit. A ring is a courtesy: if it is lost, the relay sends the job."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from redis.asyncio import Redis

    from .._wire import Delivery
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
        from .._wire import ring

        try:
            while self._waiting:
                jobs, self._waiting = self._waiting, []
                async with asyncio.timeout(RING_TIMEOUT_S):
                    await ring(self._redis, _deliveries(jobs), self._queue_name)
        except Exception as error:  # noqa: BLE001 - whatever it was, the job is in the record
            self._waiting.clear()
            logger.warning("could not ring redis (%s): the relay will", type(error).__name__)
        finally:
            self._sender = None


def _deliveries(jobs: "Sequence[tuple[UUID, Wish]]") -> "list[Delivery]":
    """Return the jobs as they go through Redis: by id alone where the payload is personal."""
    from .._wire import Delivery

    return [
        Delivery(
            id=str(job_id),
            function=wish.payload.kind,
            args=() if wish.payload.is_personal() else (wish.payload.to_wire(),),
            run_at_ms=None if wish.run_at is None else int(wish.run_at.timestamp() * 1000),
        )
        for job_id, wish in jobs
    ]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
