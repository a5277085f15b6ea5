"""The relay: sends to Redis whatever the record holds and Redis may not know.

Three ways a job can be missing there: its client's ring was lost (or a psql user rang nothing),
Redis was flushed or restarted, or a single entry vanished. The sweep finds the first and the last;
the epoch finds the second, and then everything is sent again. Sending is harmless to repeat, so
any number of relays may run side by side.
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
REBUILD_PAGE: Final = 2_000
SWEEP_PAUSE_S: Final = 1.0
AHEAD: Final = timedelta(minutes=1)
GRACE: Final = timedelta(seconds=1)
RESEND_AFTER: Final = timedelta(minutes=10)
RING_TIMEOUT_S: Final = 2.0
"""The rows of a sweep are locked meanwhile: a Redis that is silent must not hold up their jobs."""
REBUILD_MARK_S: Final = 10
"""How long a rebuild holds without a page sent; then another relay takes over."""

# The mark is one relay's: a second rebuild beside it would never let the first one be the last.
_KEEP_MARK: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then
  return redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return 0
"""

# Only if nothing wiped Redis while the rebuild ran: otherwise what was sent first is gone.
_SEAL_EPOCH: Final = """
if redis.call('GET', KEYS[2]) == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2])
  redis.call('DEL', KEYS[2])
  return 1
end
return 0
"""


@dataclass(frozen=True, slots=True)
class Sent:
    """What one step did, for the log and the tests."""

    jobs: int
    rebuilt: bool
    pause_s: float


class Relay:
    """One process's relay. `step()` does one round; `worker.maintenance.runner` owns the loop."""

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
        self._epoch_key = f"{queue_name}:epoch"
        self._rebuild_key = f"{queue_name}:rebuild"

    async def step(self) -> float:
        """Do one round and return the seconds until the next."""
        sent = await self.round()
        if sent.jobs:
            self._events.emit("relay.sent", jobs=sent.jobs, rebuilt=sent.rebuilt)
        return sent.pause_s

    async def round(self) -> Sent:
        """Rebuild the queue if Redis is not the one it was, else sweep one batch."""
        run_id = str((await self._redis.info("server"))["run_id"])
        if await self._redis.get(self._epoch_key) != run_id.encode():
            return await self._rebuild(run_id)
        sent = await self._sweep()
        return Sent(sent, rebuilt=False, pause_s=0.0 if sent == BATCH_MAX else SWEEP_PAUSE_S)

    async def _sweep(self) -> int:
        async with self._sessions() as session:
            unsent = await Dispatch(session).take_unsent(
                BATCH_MAX, ahead=AHEAD, grace=GRACE, resend_after=RESEND_AFTER
            )
            # Sent before it is marked: a crash in between sends twice, which is harmless.
            async with asyncio.timeout(RING_TIMEOUT_S):
                await put(self._redis, queued_jobs(unsent), self._queue_name)
            await session.commit()
            return len(unsent)

    async def _rebuild(self, run_id: str) -> Sent:
        """Send every queued job again, in order of time, then mark this Redis as complete.

        One relay does it; the others wait for the mark's end, or for that of the relay.
        """
        token = secrets.token_hex(8)
        if not await self._redis.set(self._rebuild_key, token, nx=True, ex=REBUILD_MARK_S):
            return Sent(0, rebuilt=False, pause_s=SWEEP_PAUSE_S)
        try:
            sent = await self._send_everything(token)
            await self._script(_SEAL_EPOCH, [self._epoch_key, self._rebuild_key], token, run_id)
        except Exception:
            await self._let_go(token)
            raise
        return Sent(sent, rebuilt=True, pause_s=0.0)

    async def _send_everything(self, token: str) -> int:
        sent = 0
        position = BEGINNING
        while page := await self._page(position):
            await put(self._redis, queued_jobs(page), self._queue_name)
            sent += len(page)
            position = (page[-1].run_at, page[-1].id)
            if not await self._script(_KEEP_MARK, [self._rebuild_key], token, REBUILD_MARK_S):
                break  # wiped meanwhile: the next round begins anew
        return sent

    async def _let_go(self, token: str) -> None:
        """Let the next round begin anew at once; where Redis is away the mark ends by itself."""
        with suppress(RedisError, OSError):
            async with asyncio.timeout(RING_TIMEOUT_S):
                await self._script(_KEEP_MARK, [self._rebuild_key], token, 0)

    async def _script(self, text: str, keys: list[str], *arguments: str | int) -> int:
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
