"""How far long jobs are, where their callers can see it: a key in Redis that forgets by itself.

A courtesy. It is written at most twice a second for each job, and a Redis that is away costs
nothing but the news.
"""

import asyncio
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json
from redis.exceptions import RedisError

from jobs._wire import progress_key

if TYPE_CHECKING:
    from uuid import UUID

    from redis.asyncio import Redis

    from jobs._reports import Progress

INTERVAL_S: Final = 0.5
KEPT_S: Final = 3_600
WRITE_WAIT_S: Final = 1.5


class ProgressBoard:
    """Tells the progress of this process's reports; subscribe `note` to them."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._told_at: dict[UUID, float] = {}
        self._writes: set[asyncio.Task[None]] = set()

    def note(self, progress: "Progress") -> None:
        """Pass one step on, unless the last was a moment ago; never waits, never raises."""
        now = time.monotonic()
        last = progress.stage == "publishing"
        if not last and now - self._told_at.get(progress.job_id, 0.0) < INTERVAL_S:
            return
        self._told_at[progress.job_id] = now
        if last:
            self._told_at.pop(progress.job_id)
        write = asyncio.get_running_loop().create_task(self._write(progress))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def _write(self, progress: "Progress") -> None:
        said = {"done": progress.done, "total": progress.total, "note": progress.stage}
        with suppress(RedisError, OSError):
            async with asyncio.timeout(WRITE_WAIT_S):
                await self._redis.set(progress_key(progress.job_id), to_json(said), ex=KEPT_S)
