"""The relay: sends jobs to Redis that PostgreSQL has accepted and Redis may not have.

A job can be missing there in three ways: the client could not send it, or it was enqueued by SQL
alone; Redis was flushed or restarted; or a single entry was lost. A sweep of the rows finds the
first and the last. A restart shows in Redis' own run id, and then the queue is rebuilt from the
rows. Sending may be repeated without harm.

Each queue has a relay in each process that serves it, and sends its own jobs alone. One relay of a
queue at a time sweeps, by an advisory lock in PostgreSQL. A rebuild goes in pages, each by
whichever relay holds a mark in Redis. How far it got is kept beside the mark, so that it goes on
where it was, however long it takes and whoever dies; and before each page its relay sweeps.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from db.dispatch import BEGINNING, Dispatch, Unsent
from jobs._queue import DEFAULT, queue_key
from jobs._wire import BELL_SUFFIX, QueuedJob, put, queued_job

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.monitoring.events import Events

BATCH_MAX: Final = 500
"""Jobs in one sweep."""
REBUILD_PAGE: Final = 2_000
"""Jobs in one page of a rebuild."""
BATCH_MIN: Final = 10
"""Jobs in a batch or a page on a line so slow that larger ones were not sent in time."""
SWEEP_PAUSE_S: Final = 1.0
AHEAD: Final = timedelta(minutes=1)
"""A job goes to Redis when it is due within this time; until then its row alone has it."""
GRACE: Final = timedelta(seconds=1)
"""A client sends its job itself; it has this long before a sweep does."""
RESEND_AFTER: Final = timedelta(minutes=10)
"""A job that was sent, and is still queued so long after it could have run, is sent again."""
SEND_TIMEOUT_S: Final = 2.0
"""A sweep locks its rows while it sends: a Redis that does not answer must not block their jobs."""
PAGE_TIMEOUT_S: Final = 10.0
"""For sending one page of a rebuild, which locks nothing."""
STEP_TIMEOUT_S: Final = 25.0
REBUILD_MARK_S: Final = 30
"""The mark of a relay that died in a page is gone after this time, and another goes on.

Longer than a step takes at most: who sends a page still holds the mark.
"""
POSITION_KEPT_S: Final = 24 * 3_600
"""How long an unfinished rebuild that no relay goes on with is remembered."""
SPOILED_KEPT_S: Final = 24 * 3_600
"""How long what stood in the queue's place is kept, for somebody to look at."""
REFUSED_MAX_S: Final = 3.0
"""Where Redis takes no new jobs for this time, they are claimed from PostgreSQL."""
WITHOUT_INFO: Final = "unknown"
"""Stands for the run id of a Redis that does not tell it to this user.

A flush then still shows, since it deletes the key that this is kept under.
"""

# Returns the position of the rebuild for this run id, '' at its beginning; false, and nothing is
# changed, where another relay holds the mark. A mark without an end is no relay's.
_TAKE_MARK: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and redis.call('TTL', KEYS[1]) >= 0 then
  return false
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
local run_id, position = unpack(redis.call('HMGET', KEYS[2], 'run_id', 'position'))
return run_id == ARGV[3] and position or ''
"""

# The holder alone moves the position. Redis may have been flushed while a page was sent: then the
# mark is gone, and the next round begins anew.
_ADVANCE: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('HSET', KEYS[2], 'run_id', ARGV[2], 'position', ARGV[3])
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
"""

_FINISH_REBUILD: Final = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""

# Somebody gave the queue another type: nothing can be claimed from it or sent to it. What is there
# is kept under another name for a day, and a rebuild is asked for.
_MEND_QUEUE: Final = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'zset' or kind == 'none' then
  return 0
end
redis.call('RENAME', KEYS[1], KEYS[2])
redis.call('EXPIRE', KEYS[2], ARGV[1])
redis.call('DEL', KEYS[3])
return 1
"""

_RELEASE_MARK: Final = """
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one round did."""

    jobs: int
    rebuilt: bool
    """Whether a rebuild ended: every job that is due soon was sent again."""
    pause_s: float
    """Until the next round."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a sweep or a step of a rebuild did."""

    jobs: int = 0
    more: bool = False
    """Whether there is more to do at once."""
    finished: bool = False
    """Whether a rebuild ended with it."""


NOTHING: Final = Page()


class BatchSize:
    """How many jobs are sent at once: half as many each time that it took too long."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.jobs = most

    def halve(self) -> None:
        """Send fewer from now on."""
        self.jobs = max(BATCH_MIN, self.jobs // 2)

    def restore(self) -> None:
        """Send more again."""
        self.jobs = min(self._most, self.jobs * 2)


class Relay:
    """One process's relay of one queue, a background duty."""

    name = "relay"
    step_timeout_s = STEP_TIMEOUT_S

    def __init__(  # noqa: PLR0913 - what it looks at, each by name
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        redis: "Redis",
        queue_name: str,
        events: "Events",
        queue: str = DEFAULT,
        *,
        paused_kinds: "Callable[[], Collection[str]]" = frozenset,
    ) -> None:
        """Relay one queue's jobs.

        Args:
            sessions: on the rows.
            redis: where to.
            queue_name: the key of the queue `default` in Redis.
            events: where it is told what was sent.
            queue: the name of the one that is relayed.
            paused_kinds: returns the kinds whose jobs stay where they are.
        """
        self._sessions = sessions
        self._redis = redis
        self._queue = queue
        self._paused_kinds = paused_kinds
        self._queue_name = queue_name
        self._key = key = queue_key(queue, queue_name)
        self._events = events
        self._token = secrets.token_hex(8)
        self._run_id_key = f"{key}:epoch"
        self._spoiled_key = f"{key}:spoiled"
        self._mark_keys = (f"{key}:rebuild", f"{key}:rebuild:position")
        self._batch = BatchSize(BATCH_MAX)
        self._page_size = BatchSize(REBUILD_PAGE)
        self._refused_at: float | None = None

    @property
    def refused(self) -> bool:
        """Whether Redis has taken no new jobs for `REFUSED_MAX_S`, though it may answer."""
        return self._refused_at is not None and time.monotonic() - self._refused_at >= REFUSED_MAX_S

    async def step(self) -> float:
        """Do one round and return the seconds until the next."""
        try:
            if self._refused_at is not None:
                await self._try_to_write()
            sent = await self.round()
        except (RedisError, TimeoutError):
            if self._refused_at is None:
                self._refused_at = time.monotonic()
            raise
        self._refused_at = None
        if sent.jobs:
            self._events.emit("relay.sent", jobs=sent.jobs, rebuilt=sent.rebuilt)
        return sent.pause_s

    async def _try_to_write(self) -> None:
        """Ring: a Redis that is full or read-only refuses that as it refuses a job."""
        async with asyncio.timeout(SEND_TIMEOUT_S):
            await self._redis.zadd(self._key + BELL_SUFFIX, {"ring": 0})

    async def round(self) -> Sent:
        """Sweep one batch; then send a page of a rebuild if Redis has restarted or was flushed."""
        await self._mend_queue()
        swept = await self._sweep()
        page = await self._rebuild()
        more = swept.more or page.more
        return Sent(swept.jobs + page.jobs, page.finished, 0.0 if more else SWEEP_PAUSE_S)

    async def _mend_queue(self) -> None:
        """Move aside what stands in the queue's place and is none; the rows have its jobs."""
        keys = (self._key, self._spoiled_key, self._run_id_key)
        async with asyncio.timeout(SEND_TIMEOUT_S):
            was_spoiled = await self._run_script(_MEND_QUEUE, keys, SPOILED_KEPT_S)
        if was_spoiled:
            self._events.emit("queue.spoiled", moved_to=self._spoiled_key)

    async def _sweep(self) -> Page:
        """Send what was never sent, or long ago; nothing where another relay is at it."""
        limit = self._batch.jobs
        async with self._sessions() as session:
            dispatch = Dispatch(session, self._queue)
            if not await dispatch.try_to_lead():
                return NOTHING
            unsent = await dispatch.take_unsent(
                limit,
                ahead=AHEAD,
                grace=GRACE,
                resend_after=RESEND_AFTER,
                without=self._paused_kinds(),
            )
            # Sent before the rows are marked: a crash in between sends twice, without harm.
            await self._send(unsent, self._batch, SEND_TIMEOUT_S)
            await session.commit()
        return Page(len(unsent), more=len(unsent) == limit)

    async def _send(self, jobs: Sequence[Unsent], size: BatchSize, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await put(self._redis, queued_jobs(jobs), self._queue_name)
        except TimeoutError:
            size.halve()
            raise
        size.restore()

    async def _rebuild(self) -> Page:
        """Send the next page of the rebuild, unless there is none or another relay is at it."""
        run_id = await self._run_id()
        try:
            if await self._redis.get(self._run_id_key) == run_id.encode():
                return NOTHING
            position = await self._run_script(
                _TAKE_MARK, self._mark_keys, self._token, REBUILD_MARK_S, run_id
            )
        except ResponseError as error:
            await self._repair_keys(error)
            return NOTHING
        if position is None:
            return NOTHING
        try:
            return await self._rebuild_page(run_id, position.decode(errors="replace"))
        finally:
            await self._release_mark()

    async def _run_id(self) -> str:
        try:
            info = await self._redis.info("server")
        except NoPermissionError:
            return WITHOUT_INFO
        return str(info.get("run_id") or WITHOUT_INFO)

    async def _repair_keys(self, error: ResponseError) -> None:
        """Delete the relay's own keys where somebody made one of another type; else raise."""
        if "WRONGTYPE" not in str(error):
            raise error
        await self._redis.delete(*self._mark_keys, self._run_id_key)

    async def _rebuild_page(self, run_id: str, position: str) -> Page:
        limit = self._page_size.jobs
        if not position and await self._forget_sent(limit) == limit:
            return Page(0, more=True)
        page = await self._page(_position_of(position), limit)
        await self._send(page, self._page_size, PAGE_TIMEOUT_S)
        await self._mark_sent(page)
        if len(page) < limit:
            keys = (*self._mark_keys, self._run_id_key)
            finished = await self._run_script(_FINISH_REBUILD, keys, self._token, run_id)
            return Page(len(page), finished=bool(finished))
        reached = f"{page[-1].run_at.isoformat()} {page[-1].id}"
        await self._run_script(
            *(_ADVANCE, self._mark_keys, self._token, run_id, reached, POSITION_KEPT_S)
        )
        return Page(len(page), more=True)

    async def _forget_sent(self, limit: int) -> int:
        """Have sweeps send what was sent for later: a retry's delay, a job put back for an hour."""
        async with self._sessions() as session, session.begin():
            return await Dispatch(session, self._queue).forget_sent(limit, ahead=AHEAD)

    async def _page(self, after: tuple[datetime, UUID], limit: int) -> Sequence[Unsent]:
        async with self._sessions() as session:
            return await Dispatch(session, self._queue).page_of_queued(after, limit, ahead=AHEAD)

    async def _mark_sent(self, page: Sequence[Unsent]) -> None:
        async with self._sessions() as session, session.begin():
            await Dispatch(session, self._queue).mark_sent(
                [job.id for job in page], fresh=RESEND_AFTER / 2
            )

    async def _release_mark(self) -> None:
        """Let any relay send the next page; without Redis, the mark expires by itself."""
        with suppress(RedisError, OSError):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._run_script(_RELEASE_MARK, self._mark_keys[:1], self._token)

    async def _run_script(self, text: str, keys: Sequence[str], *arguments: str | int) -> bytes:
        answer: bytes = await self._redis.execute_command(  # type: ignore[no-untyped-call]
            "EVAL", text, len(keys), *keys, *arguments
        )
        return answer


def _position_of(reached: str) -> tuple[datetime, UUID]:
    """Return the position that a rebuild has reached; '' is its beginning, and so is nonsense."""
    run_at, _, job_id = reached.partition(" ")
    try:
        position = datetime.fromisoformat(run_at), UUID(job_id)
    except ValueError:
        return BEGINNING
    return position if position[0].tzinfo else BEGINNING


def queued_jobs(jobs: Sequence[Unsent]) -> list[QueuedJob]:
    """Return jobs as they go through Redis."""
    return [
        queued_job(
            *(job.redis_id or str(job.id), job.kind, job.payload_json),
            *(job.run_at, job.enqueued_at),
            queue=job.queue,
        )
        for job in jobs
    ]
