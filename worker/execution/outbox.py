"""Sending follow-ups to Redis after their commit: one call for all that are ready.

Best effort. PostgreSQL has the jobs, so what is not sent from here is sent by the relay within
seconds, or claimed from the record where Redis is away.
"""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from jobs._wire import QueuedJob, put

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

SEND_TIMEOUT_S: Final = 2.0
WAITING_MAX: Final = 10_000
"""Beyond so many that Redis has not taken, the rest is left to the relay."""


class Outbox:
    """Sends one process's follow-ups."""

    def __init__(self, redis: "Redis", queue_name: str) -> None:
        self._redis = redis
        self._queue_name = queue_name
        self._waiting: list[QueuedJob] = []
        self._sender: asyncio.Task[None] | None = None

    def send(self, jobs: "Sequence[QueuedJob]") -> None:
        """Send jobs without making anybody wait: call it after their commit."""
        self._waiting += jobs[: WAITING_MAX - len(self._waiting)]
        if self._sender is None:
            # The task starts after everything that is ready to run now, so jobs that end in the
            # same turn of the event loop share a call.
            self._sender = asyncio.get_running_loop().create_task(self._send())

    async def flush(self) -> None:
        """Wait until what was given has been sent, or given up."""
        if self._sender is not None:
            await asyncio.wait({self._sender})

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                with suppress(RedisError, OSError):
                    async with asyncio.timeout(SEND_TIMEOUT_S):
                        await put(self._redis, batch, self._queue_name)
        finally:
            self._sender = None
