"""How far jobs are, where their callers can see it: a key in Redis per job, which expires.

Best effort. A job's key is written at most twice a second, always with the newest state; a Redis
that is away costs nothing but the progress.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic_core import to_json
from redis.exceptions import RedisError

from jobs._wire import progress_key
from worker.execution.error_text import printable

if TYPE_CHECKING:
    from uuid import UUID

    from redis.asyncio import Redis

INTERVAL_S: Final = 0.5
KEPT_S: Final = 3_600
WRITE_WAIT_S: Final = 1.5
NOTE_CHARACTERS_MAX: Final = 200


class ProgressBoard:
    """Writes the progress of this process's jobs."""

    def __init__(self, redis: "Redis") -> None:
        self._redis = redis
        self._writes: set[asyncio.Task[None]] = set()

    def of(self, job_id: "UUID") -> "JobProgress":
        """Return what a job's handler calls as `ctx.progress`."""
        return JobProgress(self, job_id)

    def start_write(self, progress: "JobProgress") -> None:
        """Write a job's newest progress without making its handler wait."""
        write = asyncio.get_running_loop().create_task(self._write(progress))
        self._writes.add(write)
        write.add_done_callback(self._writes.discard)

    async def flush(self) -> None:
        """Wait until every write that has begun is done."""
        await asyncio.gather(*self._writes)

    async def _write(self, progress: "JobProgress") -> None:
        with suppress(RedisError, OSError):
            async with asyncio.timeout(WRITE_WAIT_S):
                await self._redis.set(progress_key(progress.job_id), progress.newest, ex=KEPT_S)


@dataclass(slots=True, eq=False)
class JobProgress:
    """One job's progress: the first call is written at once, later ones every `INTERVAL_S`."""

    board: ProgressBoard
    job_id: "UUID"
    newest: bytes = b""
    _next_write_at: float = 0.0
    _scheduled: bool = False

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Note how far the job is; never waits, never raises."""
        note = printable(note, NOTE_CHARACTERS_MAX)
        self.newest = to_json({"done": done, "total": total, "note": note})
        if self._scheduled:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next_write_at:
            self._write()
        else:
            self._scheduled = True
            loop.call_at(self._next_write_at, self._write)

    def _write(self) -> None:
        self._scheduled = False
        self._next_write_at = asyncio.get_running_loop().time() + INTERVAL_S
        self.board.start_write(self)
