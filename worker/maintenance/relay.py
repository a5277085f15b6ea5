"""The relay: sends jobs to Redis that PostgreSQL has accepted and Redis may not have.

A job can be missing there in three ways: the client could not send it, or it was enqueued by SQL
alone; Redis was flushed or restarted; or a single entry was lost. A sweep of the rows finds the
first and the last. A restart shows in Redis' own run id, and then every queued job is sent again.
Sending may be repeated without harm, so any number of relays may run side by side.
"""

import asyncio
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pydantic_core import to_json
from redis.exceptions import RedisError

from db.dispatch import BEGINNING, Dispatch, Unsent
from jobs._wire import QueuedJob, put, queued_job

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.monitoring.events import Events

BATCH_MAX: Final = 500
"""Jobs in one sweep."""
REBUILD_PAGE: Final = 2_000
"""Jobs in one page of a rebuild."""
SWEEP_PAUSE_S: Final = 1.0
AHEAD: Final = timedelta(minutes=1)
"""A job goes to Redis when it is due within this time; until then its row alone has it."""
GRACE: Final = timedelta(seconds=1)
"""A client sends its job itself; it has this long before a sweep does."""
RESEND_AFTER: Final = timedelta(minutes=10)
"""A job that was sent and is still queued after this time is sent again."""
SEND_TIMEOUT_S: Final = 2.0
"""A sweep locks its rows while it sends: a Redis that does not answer must not block their jobs."""
REBUILD_MARK_S: Final = 10
"""How long a rebuild may go without sending a page; then another relay takes over."""

# Only the relay that set the mark may extend it: two rebuilds at once would keep invalidating each
# other. An extension to 0 seconds removes the mark.
_EXTEND_MARK: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 0
"""

# The run id is stored only while the mark is there: a Redis that was flushed during the rebuild has
# lost the jobs that were sent first, and must be rebuilt again.
_FINISH_REBUILD: Final = """
if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('DEL', KEYS[2])
  return 1
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one round did."""

    jobs: int
    rebuilt: bool
    """Whether every queued job was sent again."""
    pause_s: float
    """Until the next round."""


class Relay:
    """One process's relay, a background duty."""

    name = "relay"

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        redis: "Redis",
        queue_name: str,
        events: "Events",
    ) -> None:
        self._sessions = sessions
        self._redis = redis
        self._queue_name = queue_name
        self._events = events
        self._run_id_key = f"{queue_name}:epoch"
        self._rebuild_key = f"{queue_name}:rebuild"

    async def step(self) -> float:
        """Do one round and return the seconds until the next."""
        sent = await self.round()
        if sent.jobs:
            self._events.emit("relay.sent", jobs=sent.jobs, rebuilt=sent.rebuilt)
        return sent.pause_s

    async def round(self) -> Sent:
        """Rebuild the queue if Redis has restarted or was flushed, else sweep one batch."""
        run_id = str((await self._redis.info("server"))["run_id"])
        if await self._redis.get(self._run_id_key) != run_id.encode():
            return await self._rebuild(run_id)
        sent = await self._sweep()
        return Sent(sent, rebuilt=False, pause_s=0.0 if sent == BATCH_MAX else SWEEP_PAUSE_S)

    async def _sweep(self) -> int:
        async with self._sessions() as session:
            unsent = await Dispatch(session).take_unsent(
                BATCH_MAX, ahead=AHEAD, grace=GRACE, resend_after=RESEND_AFTER
            )
            # Sent before the rows are marked: a crash in between sends twice, without harm.
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await put(self._redis, queued_jobs(unsent), self._queue_name)
            await session.commit()
            return len(unsent)

    async def _rebuild(self, run_id: str) -> Sent:
        """Send every queued job again, in order of time, then store this Redis' run id.

        One relay at a time does it, and holds a mark; the others do nothing until the mark is gone.
        """
        token = secrets.token_hex(8)
        if not await self._redis.set(self._rebuild_key, token, nx=True, ex=REBUILD_MARK_S):
            return Sent(0, rebuilt=False, pause_s=SWEEP_PAUSE_S)
        try:
            sent = await self._send_everything(token)
            await self._run_script(
                _FINISH_REBUILD, [self._run_id_key, self._rebuild_key], token, run_id
            )
        except Exception:
            await self._release_mark(token)
            raise
        return Sent(sent, rebuilt=True, pause_s=0.0)

    async def _send_everything(self, token: str) -> int:
        sent = 0
        position = BEGINNING
        while page := await self._page(position):
            await put(self._redis, queued_jobs(page), self._queue_name)
            sent += len(page)
            position = (page[-1].run_at, page[-1].id)
            if not await self._run_script(_EXTEND_MARK, [self._rebuild_key], token, REBUILD_MARK_S):
                break  # Redis was flushed meanwhile: the next round begins anew
        return sent

    async def _release_mark(self, token: str) -> None:
        """Have the next round begin anew at once; without Redis, the mark expires by itself."""
        with suppress(RedisError, OSError):
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await self._run_script(_EXTEND_MARK, [self._rebuild_key], token, 0)

    async def _run_script(self, text: str, keys: list[str], *arguments: str | int) -> int:
        done = await self._redis.execute_command(  # type: ignore[no-untyped-call]
            "EVAL", text, len(keys), *keys, *arguments
        )
        return int(done)

    async def _page(self, after: tuple[datetime, UUID]) -> Sequence[Unsent]:
        async with self._sessions() as session:
            return await Dispatch(session).page_of_queued(after, REBUILD_PAGE, ahead=AHEAD)


def queued_jobs(jobs: Sequence[Unsent]) -> list[QueuedJob]:
    """Return jobs as they go through Redis."""
    return [
        queued_job(
            job.redis_id or str(job.id),
            job.kind,
            to_json(job.payload).decode(),
            job.run_at,
            job.enqueued_at,
        )
        for job in jobs
    ]
