"""Looks jobs up by id: where they are, how they ended, how far they are; and cancels them.

With `sessions` the job's row decides, whatever Redis says: Redis wakes, and knows of jobs that have
no row yet. A worker writes a job's end into its row first and into Redis after that; so a job that
Redis no longer has is looked for in PostgreSQL once more before it counts as unknown.
"""

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json

from .._errors import JobNotFoundError, ResultTimeoutError
from .._wire import abort, find, job_id_of, progress_key, result_key
from .answers import End, Progress, end_in_redis
from .waiter import Wakeups

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession

    from .._wire import Found
    from .answers import Status
    from .sql import JobRow, JobTable

LOOK_AGAIN_FIRST_S: Final = 0.05
LOOK_AGAIN_MAX_S: Final = 1.0
CANCEL_TRIES: Final = 2
"""The second is for a row that came between the first and the look at it."""
WOKEN_LOOK_AGAIN_S: Final = 2.0
"""How often to look although no wake-up came: a flush of Redis takes the wake-up with it."""


class Follower:
    """Reads PostgreSQL and Redis; either may be missing.

    A job is named by its id in Redis. `recorded` says that it was accepted in PostgreSQL, so that
    it exists although Redis may not have it yet.
    """

    def __init__(
        self,
        redis: "Redis | None",
        sessions: "Callable[[], AsyncSession] | None",
        queue_name: str,
        jobs: "JobTable",
    ) -> None:
        self._jobs = jobs
        self._redis = redis
        self._sessions = sessions
        self._queue_name = queue_name
        self._wakeups = None if redis is None else Wakeups(redis)

    async def status(self, redis_id: str) -> "Status":
        """Return where the job is; see `Handle.status`."""
        row, found = await self._read(redis_id)
        if row is None:
            if found is None or not found.is_known:
                raise self._not_found(redis_id)
            return _status_in(found)
        if row.state != "queued":
            return row.state  # type: ignore[no-any-return]
        if found is None:
            found = await self._found(redis_id)
        if found is not None and found.running:
            return "running"
        return "scheduled" if row.scheduled else "queued"

    async def end(self, redis_id: str, timeout: float, *, recorded: bool) -> End:  # noqa: ASYNC109 - arq's name
        """Wait for the job's end; see `Handle.result`."""
        deadline = asyncio.timeout(timeout)
        try:
            async with deadline:
                return await self._wait(redis_id, recorded=recorded)
        except TimeoutError:
            if not deadline.expired():
                raise  # a server's, which says nothing of the job
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
            state = await self._cancel_in_row(redis_id, reason)
            if state == "cancelled":
                await self._abort_quietly(redis_id)
            if state is not None:
                return state == "cancelled"
        end = await self._look(redis_id, recorded=recorded)
        if end is None and self._redis is not None:
            await abort(self._redis, [redis_id], self._queue_name)
            try:
                end = await self.end(redis_id, timeout, recorded=recorded)
            except (ResultTimeoutError, JobNotFoundError):
                return False
        return end is not None and end.state == "cancelled"

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
        """Look once for the job's end.

        Raises:
            JobNotFoundError: neither has the job, and it is not known to exist.
        """
        row, found = await self._read(redis_id)
        if row is not None:
            return None if row.state == "queued" else End(row.state, row.kind, row.result)
        if found is not None and found.is_known:
            return _end_in(found)
        if recorded and self._sessions is None:
            return None
        raise self._not_found(redis_id)

    async def _read(self, redis_id: str) -> "tuple[JobRow | None, Found | None]":
        """Read the job's row and, if there is none, what Redis has.

        When Redis has no more than an end, the row may have come between the two.
        """
        row = await self._row(redis_id)
        if row is not None:
            return row, None
        found = await self._found(redis_id)
        if found is None or not found.is_waiting:
            row = await self._row(redis_id)
        return row, found

    async def _row(self, redis_id: str) -> "JobRow | None":
        if self._sessions is None:
            return None
        async with self._sessions() as session:
            return await session.run_sync(self._jobs.find, job_id_of(redis_id))

    async def _found(self, redis_id: str) -> "Found | None":
        return None if self._redis is None else await find(self._redis, redis_id, self._queue_name)

    async def _cancel_in_row(self, redis_id: str, reason: str) -> "str | None":
        """Cancel the job in PostgreSQL; return the state it has then, None if it has no row."""
        assert self._sessions is not None  # noqa: S101 - for the type checker
        job_id = job_id_of(redis_id)
        for _ in range(CANCEL_TRIES):
            async with self._sessions() as session, session.begin():
                if await session.run_sync(self._jobs.cancel, job_id, reason):
                    return "cancelled"
            row = await self._row(redis_id)
            if row is None or row.state != "queued":
                return None if row is None else row.state
        return "queued"

    async def _abort_quietly(self, redis_id: str) -> None:
        """Stop a job that PostgreSQL has as cancelled: it saves work, and is not needed."""
        if self._redis is not None:
            with contextlib.suppress(Exception):
                await abort(self._redis, [redis_id], self._queue_name)

    def _not_found(self, redis_id: str) -> JobNotFoundError:
        if self._sessions is None:
            return JobNotFoundError(
                f"Redis has no job {redis_id}: it has ended and its result is not kept any more, "
                "or it was never sent; make the Client with `sessions` to look in PostgreSQL too"
            )
        return JobNotFoundError(
            f"there is no job {job_id_of(redis_id)}: check the id, and that the transaction that "
            "enqueued it was committed"
        )


def _end_in(found: "Found") -> End | None:
    """Return the end that Redis tells; a failure counts only once no run is left there.

    A dead job that an operator has replayed is queued again beside the result of its last run.
    """
    end = None if found.result is None else end_in_redis(found.result)
    if end is not None and found.is_waiting and end.state not in ("completed", "rejected"):
        return None
    return end


def _status_in(found: "Found") -> "Status":
    if (end := _end_in(found)) is not None:
        return end.status
    if found.running:
        return "running"
    return "scheduled" if (found.run_at_ms or 0) > found.now_ms else "queued"


async def _pause(changed: asyncio.Event | None, pause_s: float) -> None:
    if changed is None:
        await asyncio.sleep(pause_s)
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(pause_s):
            await changed.wait()
    changed.clear()
