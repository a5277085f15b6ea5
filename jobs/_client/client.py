"""The typed client: how a Python service hands work to the worker.

    client = Client(redis, sessions=sessions)
    async with sessions.begin() as session:
        session.add(order)
        job = await client.enqueue(SendReceipt(...), session=session, key=f"order-{order.id}")
    answer = await job.result(timeout=10)

It needs pydantic and arq (for its Redis client); SQLAlchemy only from a caller who has it.
"""

import asyncio
import contextlib
import sys
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Self, cast
from uuid import UUID

from pydantic_core import from_json

from .._errors import DoorClosedError, JobNotFoundError, ResultTimeoutError
from .._wire import QUEUE, abort, find, job_id_of, progress_key, result_key
from .handle import End, Handle, Progress, Status, end_in_redis
from .notifier import Ringer
from .redis import offer_to
from .sql import Wish, cancel_in, checked_time, find_in, offer_in
from .waiter import Wakeups

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from .._job import Payload
    from .sql import Offer

LOOK_AGAIN_FIRST_S: Final = 0.05
LOOK_AGAIN_MAX_S: Final = 1.0
WOKEN_LOOK_AGAIN_S: Final = 2.0
"""How often to look although nobody rang: a flush of Redis takes the wake-up with it."""


@dataclass(frozen=True, slots=True)
class Request:
    """One of several jobs for `enqueue_many`, where it needs more than its payload."""

    payload: "Payload"
    key: str | None = None
    run_at: datetime | None = None
    delay: timedelta | None = None


class Client:
    """Enqueues jobs and follows them. One per process and event loop; share it freely."""

    def __init__(
        self,
        redis: "Redis | None" = None,
        *,
        sessions: "Callable[[], AsyncSession] | None" = None,
        queue_name: str = QUEUE,
    ) -> None:
        """Open no connection yet.

        Args:
            redis: any `redis.asyncio` client, arq's pool included; rings workers, wakes waiters.
            sessions: an `async_sessionmaker` on Teller's database. With it, jobs without a
                session of the caller's get a transaction of their own, and handles ask the
                record. Without it they go through Redis, and handles know what Redis knows.
            queue_name: the worker's.
        """
        self._redis = redis
        self._sessions = sessions
        self._queue_name = queue_name
        self._ringer = None if redis is None else Ringer(redis, queue_name)
        self._wakeups: Wakeups | None = None

    async def __aenter__(self) -> Self:
        """Return the client."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Finish ringing."""
        await self.aclose()

    async def aclose(self) -> None:
        """Wait for rings that are under way. The Redis client stays open: it is the caller's."""
        if self._ringer is not None:
            await self._ringer.flush()

    async def enqueue(
        self,
        payload: "Payload",
        *,
        session: "AsyncSession | Session | None" = None,
        key: str | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
    ) -> Handle:
        """Enqueue one job.

        Args:
            payload: what to do.
            session: the job exists if and only if this session's transaction commits. Without
                one: a transaction of its own where the client has `sessions`, else Redis.
            key: the same key with the same payload is the same job of its kind; 1 to 200
                characters. Through Redis alone it becomes the arq job id `kind:key`.
            run_at: not before this time, with a time zone.
            delay: not before so long from now.

        Raises:
            UnknownKindError, InvalidPayloadError, InvalidKeyError, KeyConflictError: refused.
            DoorClosedError: there is neither a session nor a Redis.
        """
        request = Request(payload, key, run_at, delay)
        return (await self.enqueue_many([request], session=session))[0]

    async def enqueue_many(
        self,
        requests: "Iterable[Payload | Request]",
        *,
        session: "AsyncSession | Session | None" = None,
    ) -> list[Handle]:
        """Enqueue many jobs in one round trip; the handles are in the same order.

        Raises:
            ClientError: one was refused. With a session, roll back: the others are in it.
        """
        wishes = [_wish(request) for request in requests]
        if not wishes:
            return []
        if self._ringer is not None:
            self._ringer.at_home()
        if session is not None:
            return await self._offer(session, wishes)
        if self._sessions is not None:
            async with self._sessions() as own, own.begin():
                return await self._offer(own, wishes)
        if self._redis is None:
            raise DoorClosedError(
                "nowhere to enqueue: pass session=…, or make the Client with a Redis or `sessions`"
            )
        offers = await offer_to(self._redis, self._queue_name, wishes)
        return [
            Handle(job_id_of(redis_id), redis_id, fresh, _client=self) for redis_id, fresh in offers
        ]

    def enqueue_sync(
        self,
        payload: "Payload",
        *,
        session: "Session",
        key: str | None = None,
        run_at: datetime | None = None,
        delay: timedelta | None = None,
    ) -> Handle:
        """Enqueue one job in a synchronous session's transaction, from code that cannot await.

        Redis is rung on the event loop on which the client was used before; without one, the
        relay sends the job.
        """
        return self._offer_in(session, [_wish(Request(payload, key, run_at, delay))])[0]

    def handle(self, job_id: UUID | str) -> Handle:
        """Return the handle of a job by its id, in the record or in Redis; asks nobody."""
        redis_id = str(job_id)
        return Handle(job_id_of(redis_id), redis_id, _client=self)

    async def status_of(self, job: Handle) -> Status:
        """Return where the job is; see `Handle.status`."""
        row = await self._find(job)
        if row is not None and row["state"] != "queued":
            return row["state"]  # type: ignore[no-any-return]
        in_redis = await self._status_in_redis(job)
        if row is not None:
            later = in_redis != "running" and row["later"]
            return "scheduled" if later else in_redis if in_redis == "running" else "queued"
        if in_redis is None:
            raise self._not_found(job)
        return in_redis

    async def end_of(self, job: Handle, timeout: float) -> End:  # noqa: ASYNC109 - arq's name
        """Wait for the job's end; see `Handle.result`."""
        try:
            async with asyncio.timeout(timeout), AsyncExitStack() as exits:
                changed = None
                key = result_key(job.redis_id)
                if self._redis is not None:
                    if self._wakeups is None:
                        self._wakeups = Wakeups(self._redis)
                    changed = await exits.enter_async_context(self._wakeups.watch(key))
                pause_s = WOKEN_LOOK_AGAIN_S if changed else LOOK_AGAIN_FIRST_S
                while (end := await self._end(job)) is None:
                    await _pause(changed, pause_s)
                    if self._wakeups is not None and changed is not None:
                        changed = changed if await self._wakeups.remind(key) else None
                    if changed is None:
                        pause_s = min(pause_s * 2, LOOK_AGAIN_MAX_S)
                return end
        except TimeoutError:
            raise ResultTimeoutError(
                f"job {job.id} has no result after {timeout:g} s; it goes on: ask again later, "
                "or look at its status()"
            ) from None

    async def progress_of(self, job: Handle) -> Progress | None:
        """Return what the job last said; see `Handle.progress`."""
        if self._redis is None:
            return None
        said = await self._redis.get(progress_key(job.id))
        return None if said is None else Progress(**from_json(said))

    async def cancel(self, job: Handle, reason: str, timeout: float) -> bool:  # noqa: ASYNC109 - arq's name
        """Cancel the job; see `Handle.cancel`."""
        if self._sessions is not None:
            async with self._sessions() as session, session.begin():
                cancelled = await session.run_sync(cancel_in, job.id, reason)
            if cancelled:
                await self._abort_quietly(job)
                return True
            if await self._find(job) is not None:
                return False
        if self._redis is None:
            raise self._not_found(job)
        await self._abort(job)
        try:
            return (await self.end_of(job, timeout)).state == "cancelled"
        except (ResultTimeoutError, JobNotFoundError):
            return False

    async def _offer(
        self, session: "AsyncSession | Session", wishes: "Sequence[Wish]"
    ) -> list[Handle]:
        run_sync = getattr(session, "run_sync", None)  # an AsyncSession, told without importing it
        if run_sync is None:
            return self._offer_in(cast("Session", session), wishes)
        return cast("list[Handle]", await run_sync(self._offer_in, wishes))

    def _offer_in(self, session: "Session", wishes: "Sequence[Wish]") -> list[Handle]:
        offers: list[Offer] = offer_in(session, wishes, self._ring)
        return [
            Handle(offer.id, str(offer.id), offer.fresh, recorded=True, _client=self)
            for offer in offers
        ]

    def _ring(self, jobs: "list[tuple[UUID, Wish]]") -> None:
        if self._ringer is not None:
            self._ringer.ring_soon(jobs)

    async def _find(self, job: Handle) -> "Mapping[str, Any] | None":
        if self._sessions is None:
            return None
        async with self._sessions() as session:
            return await session.run_sync(find_in, job.id)

    async def _end(self, job: Handle) -> End | None:
        """Look once: Redis first, which is cheaper, then the record."""
        in_redis: Status | None = None
        if self._redis is not None:
            found = await self._redis.get(result_key(job.redis_id))
            if found is not None and (end := _read(found)) is not None:
                return end
        row = await self._find(job)
        if row is not None:
            return (
                None if row["state"] == "queued" else End(row["state"], row["kind"], row["result"])
            )
        if job.recorded and self._sessions is None:
            return None
        in_redis = await self._status_in_redis(job)
        if in_redis is None:
            raise self._not_found(job)
        return None

    async def _status_in_redis(self, job: Handle) -> Status | None:
        """Return what arq's keys say, by one atomic look; None if they say nothing."""
        if self._redis is None:
            return None
        found = await find(self._redis, job.redis_id, self._queue_name)
        if found.result is not None and (end := _read(found.result)) is not None:
            return "dead" if end.state == "conflict" else end.state
        if found.running:
            return "running"
        if found.run_at_ms is not None:
            return "scheduled" if found.run_at_ms > time.time() * 1000 else "queued"
        return "queued" if found.has_body else None

    async def _abort(self, job: Handle) -> None:
        """Ask the worker to abort, as arq's own client does."""
        if self._redis is not None:
            await abort(self._redis, [job.redis_id], self._queue_name)

    async def _abort_quietly(self, job: Handle) -> None:
        """Stop a job that the record has cancelled: it saves work, and is not needed."""
        with contextlib.suppress(Exception):
            await self._abort(job)

    def _not_found(self, job: Handle) -> JobNotFoundError:
        if self._sessions is None:
            return JobNotFoundError(
                f"Redis does not know job {job.redis_id}: it ended long ago, or was never sent; "
                "make the Client with `sessions` to ask the record"
            )
        return JobNotFoundError(
            f"there is no job {job.id}: check the id, and that the transaction that enqueued it "
            "was committed"
        )


def _read(found: "bytes | str") -> End | None:
    try:
        result = from_json(found)
    except ValueError:
        return None
    return end_in_redis(result) if isinstance(result, dict) else None


async def _pause(changed: asyncio.Event | None, pause_s: float) -> None:
    if changed is None:
        await asyncio.sleep(pause_s)
        return
    try:
        async with asyncio.timeout(pause_s):
            await changed.wait()
    except TimeoutError:
        pass
    changed.clear()


def _wish(request: "Payload | Request") -> Wish:
    if not isinstance(request, Request):
        return Wish(request, None, None, _traceparent())
    if request.run_at is not None and request.delay is not None:
        raise ValueError("give run_at or delay, not both")
    run_at = request.run_at
    if request.delay is not None:
        run_at = datetime.now(UTC) + request.delay
    if run_at is not None:
        run_at = checked_time(run_at)
    return Wish(request.payload, request.key, run_at, _traceparent())


def _traceparent() -> str | None:
    """Return the caller's trace context, where OpenTelemetry is in use."""
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is None:
        return None
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent")
