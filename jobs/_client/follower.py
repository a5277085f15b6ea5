"""Looks jobs up by id: where they are, how they ended, how far they are; and cancels them."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json

from .._errors import JobNotFoundError, ResultTimeoutError
from .._wire import abort, find, job_id_of, progress_key, result_key
from .answers import End, Progress, end_in_redis
from .sql import cancel_job, find_job
from .waiter import Wakeups

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession

    from .answers import Status
    from .sql import JobRow

LOOK_AGAIN_FIRST_S: Final = 0.05
LOOK_AGAIN_MAX_S: Final = 1.0
WOKEN_LOOK_AGAIN_S: Final = 2.0
"""How often to look although no wake-up came: a flush of Redis takes the wake-up with it."""


class Follower:
    """Reads Redis, which is cheaper, and PostgreSQL, which knows more; either may be missing.

    A job is named by its id in Redis. `recorded` says that it was accepted in PostgreSQL, so that
    it exists although Redis may not have it yet.
    """

    def __init__(
        self,
        redis: "Redis | None",
        sessions: "Callable[[], AsyncSession] | None",
        queue_name: str,
    ) -> None:
        self._redis = redis
        self._sessions = sessions
        self._queue_name = queue_name
        self._wakeups = None if redis is None else Wakeups(redis)

    async def status(self, redis_id: str) -> "Status":
        """Return where the job is; see `Handle.status`."""
        row = await self._row(redis_id)
        if row is not None and row.state != "queued":
            return row.state  # type: ignore[no-any-return]
        in_redis = await self._status_in_redis(redis_id)
        if row is None:
            if in_redis is None:
                raise self._not_found(redis_id)
            return in_redis
        if in_redis == "running":
            return "running"
        return "scheduled" if row.scheduled else "queued"

    async def end(self, redis_id: str, timeout: float, *, recorded: bool) -> End:  # noqa: ASYNC109 - arq's name
        """Wait for the job's end; see `Handle.result`."""
        try:
            async with asyncio.timeout(timeout):
                return await self._wait(redis_id, recorded=recorded)
        except TimeoutError:
            raise ResultTimeoutError(
                f"job {job_id_of(redis_id)} has no result after {timeout:g} s; it goes on: "
                "ask again later, or look at its status()"
            ) from None

    async def progress(self, redis_id: str) -> Progress | None:
        """Return what the job last said; see `Handle.progress`."""
        if self._redis is None:
            return None
        said = await self._redis.get(progress_key(job_id_of(redis_id)))
        return None if said is None else Progress(**from_json(said))

    async def cancel(
        self,
        redis_id: str,
        reason: str,
        timeout: float,  # noqa: ASYNC109 - arq's name
        *,
        recorded: bool,
    ) -> bool:
        """Cancel the job; see `Handle.cancel`."""
        if self._sessions is not None:
            async with self._sessions() as session, session.begin():
                cancelled = await session.run_sync(cancel_job, job_id_of(redis_id), reason)
            if cancelled:
                await self._abort_quietly(redis_id)
                return True
            if await self._row(redis_id) is not None:
                return False
        if self._redis is None:
            raise self._not_found(redis_id)
        await abort(self._redis, [redis_id], self._queue_name)
        try:
            end = await self.end(redis_id, timeout, recorded=recorded)
        except (ResultTimeoutError, JobNotFoundError):
            return False
        return end.state == "cancelled"

    async def _wait(self, redis_id: str, *, recorded: bool) -> End:
        wakeups, key = self._wakeups, result_key(redis_id)
        async with contextlib.nullcontext() if wakeups is None else wakeups.watch(key) as event:
            changed = event
            pause_s = LOOK_AGAIN_FIRST_S if changed is None else WOKEN_LOOK_AGAIN_S
            while (end := await self._look(redis_id, recorded=recorded)) is None:
                await _pause(changed, pause_s)
                if changed is not None and wakeups is not None and not await wakeups.track(key):
                    changed = None
                if changed is None:
                    pause_s = min(pause_s * 2, LOOK_AGAIN_MAX_S)
            return end

    async def _look(self, redis_id: str, *, recorded: bool) -> End | None:
        """Look once for the job's end: in Redis first, then in PostgreSQL."""
        if self._redis is not None:
            stored = await self._redis.get(result_key(redis_id))
            if stored is not None and (end := end_in_redis(stored)) is not None:
                return end
        row = await self._row(redis_id)
        if row is not None:
            return None if row.state == "queued" else End(row.state, row.kind, row.result)
        if recorded and self._sessions is None:
            return None
        if await self._status_in_redis(redis_id) is None:
            raise self._not_found(redis_id)
        return None

    async def _row(self, redis_id: str) -> "JobRow | None":
        if self._sessions is None:
            return None
        async with self._sessions() as session:
            return await session.run_sync(find_job, job_id_of(redis_id))

    async def _status_in_redis(self, redis_id: str) -> "Status | None":
        """Return what arq's keys say; None if they say nothing."""
        if self._redis is None:
            return None
        found = await find(self._redis, redis_id, self._queue_name)
        if found.result is not None and (end := end_in_redis(found.result)) is not None:
            return end.status
        if found.running:
            return "running"
        if found.run_at_ms is not None:
            return "scheduled" if found.run_at_ms > time.time() * 1000 else "queued"
        return "queued" if found.has_body else None

    async def _abort_quietly(self, redis_id: str) -> None:
        """Stop a job that PostgreSQL has as cancelled: it saves work, and is not needed."""
        if self._redis is not None:
            with contextlib.suppress(Exception):
                await abort(self._redis, [redis_id], self._queue_name)

    def _not_found(self, redis_id: str) -> JobNotFoundError:
        if self._sessions is None:
            return JobNotFoundError(
                f"Redis has no job {redis_id}: it ended long ago, or was never sent; "
                "make the Client with `sessions` to look in PostgreSQL too"
            )
        return JobNotFoundError(
            f"there is no job {job_id_of(redis_id)}: check the id, and that the transaction that "
            "enqueued it was committed"
        )


async def _pause(changed: asyncio.Event | None, pause_s: float) -> None:
    if changed is None:
        await asyncio.sleep(pause_s)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause_s):
            await changed.wait()
    changed.clear()
