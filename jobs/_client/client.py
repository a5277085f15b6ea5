"""The typed client: how a Python service enqueues jobs.

    client = Client(redis, sessions=sessions)
    async with sessions.begin() as session:
        session.add(order)
        job = await client.enqueue(SendReceipt(...), session=session, key=f"order-{order.id}")
    answer = await job.result(timeout=10)

It needs pydantic and arq (for its Redis client); SQLAlchemy only from a caller who has it.
"""

from functools import partial
from typing import TYPE_CHECKING, Self, cast

from .._errors import DoorClosedError
from .._queue import QUEUE
from .._request import Enqueued, Request, check, checked_key, require_no_notify
from .._wire import job_id_of, queued_job
from .after_commit import call_after_commit
from .batch import Batch, BatchFollower
from .batch_sql import BatchTable
from .follower import Follower
from .handle import Handle
from .notifier import Ringer
from .redis import enqueue_in_redis
from .sql import SCHEMA, JobTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from datetime import datetime, timedelta
    from uuid import UUID

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import Session

    from .._batch import OnDead
    from .._payload import Payload
    from .._request import CheckedRequest
    from .batch_sql import Opened


class Client:
    """Enqueues jobs and follows them. One per process and event loop; share it freely."""

    def __init__(
        self,
        redis: "Redis | None" = None,
        *,
        sessions: "Callable[[], AsyncSession] | None" = None,
        queue_name: str = QUEUE,
        schema: str = SCHEMA,
    ) -> None:
        """Open no connection yet.

        Args:
            redis: any `redis.asyncio` client, arq's pool included; wakes workers, and those who
                wait for results.
            sessions: an `async_sessionmaker` on Teller's database. With it, jobs without a
                session of the caller's get a transaction of their own, and handles read the
                job's row. Without it they go through Redis, and handles read Redis alone.
            queue_name: where the queue `default` stands in Redis, the worker's TELLER_QUEUE_NAME.
            schema: where Teller's tables are, the worker's TELLER_SCHEMA.

        Raises:
            ValueError: `schema` cannot be the name of one.
        """
        self._jobs = JobTable(schema)
        self._redis = redis
        self._sessions = sessions
        self._queue_name = queue_name
        self._ringer = None if redis is None else Ringer(redis, queue_name)
        self._follower = Follower(redis, sessions, queue_name, self._jobs)
        self._batches = BatchTable(self._jobs)
        self._batch_follower = BatchFollower(
            self._batches, sessions, redis, queue_name, self.handle
        )

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

    async def enqueue(  # noqa: PLR0913 - what a job may be given, by name
        self,
        payload: "Payload",
        *,
        session: "AsyncSession | Session | None" = None,
        key: str | None = None,
        run_at: "datetime | None" = None,
        delay: "timedelta | None" = None,
        notify: str | None = None,
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
            notify: the webhook endpoint that hears of the job's end, by its name.

        Raises:
            UnknownKindError, InvalidPayloadError, InvalidKeyError, KeyConflictError,
                UnknownEndpointError: refused.
            DoorClosedError: there is neither a session nor a Redis.
        """
        request = Request(payload, key, run_at, delay, notify)
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
        checked = [check(request) for request in requests]
        if not checked:
            return []
        if self._ringer is not None:
            self._ringer.remember_loop()
        if session is not None:
            return await self._enqueue_in(session, checked)
        if self._sessions is not None:
            async with self._sessions() as own, own.begin():
                return await self._enqueue_in(own, checked)
        if self._redis is None:
            raise DoorClosedError(
                "nowhere to enqueue: pass session=…, or make the Client with a Redis or `sessions`"
            )
        if any(request.notify is not None for request in checked):
            raise DoorClosedError(
                "notify= needs PostgreSQL: pass session=…, or make the Client with `sessions`"
            )
        enqueued = await enqueue_in_redis(self._redis, self._queue_name, checked)
        return [self._handle(one, recorded=False) for one in enqueued]

    def enqueue_sync(  # noqa: PLR0913 - as above
        self,
        payload: "Payload",
        *,
        session: "Session",
        key: str | None = None,
        run_at: "datetime | None" = None,
        delay: "timedelta | None" = None,
        notify: str | None = None,
    ) -> Handle:
        """Enqueue one job in a synchronous session's transaction, from code that cannot await.

        Redis is rung on the event loop on which the client was used before; without one, the
        relay sends the job.
        """
        checked = check(Request(payload, key, run_at, delay, notify))
        return self._enqueue_sync(session, [checked])[0]

    async def batch(
        self,
        requests: "Iterable[Payload | Request]",
        *,
        then: "Payload | Request | None" = None,
        key: str | None = None,
        on_dead: "OnDead" = "go_on",
        session: "AsyncSession | Session | None" = None,
    ) -> Batch:
        """Enqueue jobs that belong together, and one that follows when all of them are over.

        One round trip for any number of them; none at all are over at once. The job that follows
        is enqueued exactly once, whatever happens; its payload's field `batch` says how the others
        ended (`BatchEnd`), if it has one.

        Args:
            requests: the members. One that was accepted before, by its key, joins the batch.
            then: the job that follows, of a `Request` its payload and `notify`; None: the batch
                is there to be watched and cancelled.
            key: the same key with the same members is the same batch; 1 to 200 characters.
            on_dead: whether a dead member counts as over (`go_on`), or holds the batch until
                somebody has retried it with success (`hold`).
            session: the batch exists if and only if this session's transaction commits. Without
                one: a transaction of its own.

        Raises:
            UnknownKindError, InvalidPayloadError, InvalidKeyError, KeyConflictError,
            OtherBatchError, UnknownEndpointError: refused. With a session, roll back.
            DoorClosedError: there is neither a session, nor has the client `sessions`.
        """
        members = [require_no_notify(check(request)) for request in requests]
        follows = None if then is None else check(then)
        asked = (members, follows, checked_key(key), on_dead)
        if self._ringer is not None:
            self._ringer.remember_loop()
        if session is None:
            async with self._batch_follower.session() as own, own.begin():
                return await own.run_sync(self._open_batch, *asked)
        run_sync = getattr(session, "run_sync", None)  # an AsyncSession, known without importing it
        if run_sync is None:
            return self._open_batch(cast("Session", session), *asked)
        return cast("Batch", await run_sync(self._open_batch, *asked))

    def batch_handle(self, batch_id: "UUID") -> Batch:
        """Return the handle of a batch by its id, without looking it up."""
        return Batch(batch_id, _follower=self._batch_follower)

    def handle(self, job_id: "UUID | str") -> Handle:
        """Return the handle of a job by its id in PostgreSQL or Redis, without looking it up."""
        redis_id = str(job_id)
        return Handle(job_id_of(redis_id), redis_id, _follower=self._follower)

    async def _enqueue_in(
        self, session: "AsyncSession | Session", requests: "Sequence[CheckedRequest]"
    ) -> list[Handle]:
        run_sync = getattr(session, "run_sync", None)  # an AsyncSession, known without importing it
        if run_sync is None:
            return self._enqueue_sync(cast("Session", session), requests)
        return cast("list[Handle]", await run_sync(self._enqueue_sync, requests))

    def _enqueue_sync(
        self, session: "Session", requests: "Sequence[CheckedRequest]"
    ) -> list[Handle]:
        enqueued = self._jobs.enqueue(session, requests)
        self._ring_after_commit(session, enqueued, requests)
        return [self._handle(one, recorded=True) for one in enqueued]

    def _open_batch(
        self,
        session: "Session",
        members: "Sequence[CheckedRequest]",
        then: "CheckedRequest | None",
        key: str | None,
        on_dead: "OnDead",
    ) -> Batch:
        opened: Opened = self._batches.open(session, members, then, key, on_dead)
        if opened.created:
            self._ring_after_commit(session, opened.members, members)
        handles = [self._handle(one, recorded=True) for one in opened.members]
        return Batch(opened.id, opened.created, handles, _follower=self._batch_follower)

    def _ring_after_commit(
        self,
        session: "Session",
        enqueued: "Sequence[Enqueued]",
        requests: "Sequence[CheckedRequest]",
    ) -> None:
        if self._ringer is None:
            return
        created = [
            queued_job(
                *(one.redis_id, request.kind, request.payload_json, one.run_at), queue=one.queue
            )
            for one, request in zip(enqueued, requests, strict=True)
            if one.created
        ]
        if created:
            call_after_commit(session, partial(self._ringer.ring_soon, created))

    def _handle(self, enqueued: Enqueued, *, recorded: bool) -> Handle:
        return Handle(
            job_id_of(enqueued.redis_id),
            enqueued.redis_id,
            enqueued.created,
            enqueued.replaced,
            recorded=recorded,
            _follower=self._follower,
        )
