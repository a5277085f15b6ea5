"""The relay: sends to Redis whatever the record holds and Redis may not know.

Three ways a job can be missing there: its client's ring was lost (or a psql user rang nothing),
Redis was flushed or restarted, or a single entry vanished. The sweep finds the first and the last;
the epoch finds the second, and then everything is sent again. Sending is harmless to repeat, so
any number of relays may run side by side.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from db.dispatch import BEGINNING, Dispatch, Unsent
from jobs import registry
from jobs._queue import Delivery, ring

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.events import Events

BATCH_MAX: Final = 500
REBUILD_PAGE: Final = 2_000
SWEEP_PAUSE_S: Final = 1.0
AHEAD: Final = timedelta(minutes=1)
GRACE: Final = timedelta(seconds=1)
RESEND_AFTER: Final = timedelta(minutes=10)
REBUILD_MARK_TTL_S: Final = 3_600

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
    """One process's relay. `step()` does one round; `worker.duties` owns the loop."""

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
            return Sent(await self._rebuild(run_id), rebuilt=True, pause_s=0.0)
        sent = await self._sweep()
        return Sent(sent, rebuilt=False, pause_s=0.0 if sent == BATCH_MAX else SWEEP_PAUSE_S)

    async def _sweep(self) -> int:
        async with self._sessions() as session:
            unsent = await Dispatch(session).take_unsent(
                BATCH_MAX, ahead=AHEAD, grace=GRACE, resend_after=RESEND_AFTER
            )
            # Sent before it is marked: a crash in between sends twice, which is harmless.
            await ring(self._redis, deliveries_of(unsent), self._queue_name)
            await session.commit()
            return len(unsent)

    async def _rebuild(self, run_id: str) -> int:
        """Send every queued job again, in order of time, then mark this Redis as complete."""
        token = secrets.token_hex(8)
        await self._redis.set(self._rebuild_key, token, ex=REBUILD_MARK_TTL_S)
        sent = 0
        position = BEGINNING
        while page := await self._page(position):
            await ring(self._redis, deliveries_of(page), self._queue_name)
            sent += len(page)
            position = (page[-1].run_at, page[-1].id)
        await self._redis.execute_command(  # type: ignore[no-untyped-call]
            "EVAL", _SEAL_EPOCH, 2, self._epoch_key, self._rebuild_key, token, run_id
        )
        return sent

    async def _page(self, after: tuple[datetime, UUID]) -> Sequence[Unsent]:
        async with self._sessions() as session:
            return await Dispatch(session).page_of_queued(after, REBUILD_PAGE, ahead=AHEAD)


def deliveries_of(jobs: Sequence[Unsent]) -> list[Delivery]:
    """Return the jobs as they go through Redis: by id alone where the payload is personal."""
    return [
        Delivery(
            id=job.redis_id or str(job.id),
            function=job.kind,
            args=() if _is_private(job.kind) else (job.payload,),
            run_at_ms=_milliseconds(job.run_at),
            enqueued_at_ms=_milliseconds(job.enqueued_at),
        )
        for job in jobs
    ]


def _is_private(kind: str) -> bool:
    """A payload that may be personal stays in the record; the queue carries the id alone."""
    job = registry().get(kind)
    return job is None or job.payload.is_personal()


def _milliseconds(at: datetime) -> int:
    return round(at.astimezone(UTC).timestamp() * 1000)
