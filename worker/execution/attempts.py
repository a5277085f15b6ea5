"""One attempt: the handler, and the transaction that finalizes its job.

There are three kinds. The usual one does both in one transaction. A snapshot only reads, and one
with effects outside holds no connection while its handler runs; both are finalized in a transaction
that follows.
"""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn, cast

from db.engine import ONE_MOMENT
from db.execution import Record
from db.transaction import JobTransaction, snapshot_session
from jobs import Context
from worker.execution.follow_ups import open_batches, write_follow_ups
from worker.execution.outcome import (
    Answer,
    Continued,
    Finished,
    Later,
    Outcome,
    Superseded,
    keeps_effects,
    lost,
    outcome_of,
)
from worker.execution.progress import JobProgress
from worker.execution.retry import JobTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from db.store import Store
    from jobs import Job, Payload
    from jobs._context import FollowUp, NewBatch
    from jobs._progress import ShowProgress
    from jobs._services import Services
    from jobs._wire import QueuedJob
    from worker.execution.commit import CommitWindow
    from worker.execution.delivery import Delivery

    Send = Callable[[Sequence[QueuedJob]], None]
    """Sends jobs that are committed to Redis, without making anybody wait."""


def send_nothing(_jobs: "Sequence[QueuedJob]") -> None:
    """Leave everything to the relay."""


class NoStoreError(RuntimeError):
    """A handler with `effects="outside"` reached for the database."""


class _NoStore:
    """Stands in for the store of a job that has none."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NoStoreError(
            f"ctx.store.{name}: a job with effects='outside' holds no transaction while it runs. "
            "What it needs belongs in its payload, what it learns in its result or a follow-up"
        )


@dataclass(slots=True)
class Answered:
    """What a handler's call came to, before it is written."""

    outcome: "Answer"
    follow_ups: "Sequence[FollowUp]"
    batches: "Sequence[NewBatch]"
    progress_json: str | None = None
    """What the handler has shown last, where it is kept with the slice."""


@dataclass(slots=True)
class Kept:
    """What is kept from one try in place to the next."""

    answered: Answered | None = None
    """The answer of a handler with effects outside: only its conclusion is to be repeated."""


Ended = Outcome | Continued | Superseded
"""What becomes of an attempt."""


class Attempts:
    """Makes attempts; one per process, and keeps nothing of any of them."""

    def __init__(  # noqa: PLR0913 - what one process gives it, by name
        self,
        engine: "AsyncEngine",
        *,
        jobs: "Mapping[str, Job]",
        open_store: "Callable[[AsyncSession], Store]",
        services: "Services",
        progress_of: "Callable[[UUID], ShowProgress]",
        send: "Send" = send_nothing,
    ) -> None:
        self._engine = engine
        self._jobs = jobs
        self._open_store = open_store
        self._services = services
        self._progress_of = progress_of
        self._send = send

    async def run(
        self,
        job: "Job",
        payload: "Payload",
        delivery: "Delivery",
        kept: Kept,
        window: "CommitWindow",
    ) -> Ended:
        """Run the handler and finalize the job, in one transaction of their own."""
        if job.policy.effects == "outside":
            return await self._run_outside(job, payload, delivery, kept, window)
        if job.policy.snapshot:
            return await self._run_snapshot(job, payload, delivery, window)
        async with JobTransaction(self._engine, job.policy.timeout) as transaction:
            window.entered = True
            context = self._context(delivery, self._open_store(transaction.session))
            answer = await call_handler(job, context, payload)
            await transaction.conclude()
            answered = _answered(context, answer)
            if not keeps_effects(answered.outcome):
                await transaction.restart()
            return await self._conclude(transaction, job, delivery, answered, window)

    async def _run_snapshot(
        self, job: "Job", payload: "Payload", delivery: "Delivery", window: "CommitWindow"
    ) -> Ended:
        """Run a handler that only reads, one moment of the database; then finalize the job.

        It cannot lock its row meanwhile, so two workers may publish the same twice.
        """
        async with snapshot_session(self._engine, job.policy.timeout) as session:
            await session.connection(execution_options=ONE_MOMENT)
            window.entered = True
            context = self._context(delivery, self._open_store(session))
            answered = _answered(context, await call_handler(job, context, payload))
        async with JobTransaction(self._engine) as transaction:
            return await self._conclude(transaction, job, delivery, answered, window)

    async def _run_outside(
        self,
        job: "Job",
        payload: "Payload",
        delivery: "Delivery",
        kept: Kept,
        window: "CommitWindow",
    ) -> Ended:
        """Run a handler that needs no database; then finalize the job.

        A crash in between repeats what it did, under the same idempotency key.
        """
        window.entered = True
        if kept.answered is None:
            context = self._context(delivery, cast("Store", _NoStore()))
            kept.answered = _answered(context, await call_handler(job, context, payload))
        async with JobTransaction(self._engine) as transaction:
            return await self._conclude(transaction, job, delivery, kept.answered, window)

    def _context(self, delivery: "Delivery", store: "Store") -> Context:
        return Context(
            job_id=delivery.job.id,
            try_number=delivery.try_number,
            enqueued_at=delivery.job.enqueued_at,
            store=store,
            services=self._services,
            progress=self._progress_of(delivery.job.id),
            cursor=delivery.cursor,
            slices=delivery.job.slices,
            kinds=self._jobs,
        )

    async def _conclude(
        self,
        transaction: JobTransaction,
        job: "Job",
        delivery: "Delivery",
        answered: Answered,
        window: "CommitWindow",
    ) -> Ended:
        """Write the outcome and commit, unless another worker finished first."""
        session, outcome = transaction.session, answered.outcome
        to_send: list[QueuedJob] = []
        if keeps_effects(outcome):
            parent = delivery.job.id
            if answered.follow_ups:
                to_send += await write_follow_ups(session, parent, answered.follow_ups)
            if answered.batches:
                to_send += await open_batches(session, parent, answered.batches)
        if not await _write(Record(session), job, delivery, answered):
            await transaction.restart()
            return await lost(session, delivery, job)
        window.open()
        await transaction.commit()
        if to_send:
            self._send(to_send)
        return outcome


def _answered(context: Context, answer: object) -> Answered:
    outcome = outcome_of(answer)
    progress_json = None
    if isinstance(outcome, Continued) and isinstance(context.progress, JobProgress):
        progress_json = context.progress.newest.decode() or None
    return Answered(outcome, context.follow_ups, context.batches, progress_json)


async def _write(record: Record, job: "Job", delivery: "Delivery", answered: Answered) -> bool:
    """Write the outcome into the job's row; False where another delivery was first."""
    match answered.outcome:
        case Finished(state, result):
            purgeable = job.policy.kept_for is not None
            return await record.finish(delivery.job, state, result, purgeable=purgeable)
        case Later(delay):
            return await record.postpone(delivery.job, delay)
        case Continued(cursor_json, delay):
            progress_json = answered.progress_json
            return await record.advance(
                delivery.job, cursor_json, delay, progress_json=progress_json
            )


async def call_handler(job: "Job", context: Context, payload: "Payload") -> object:
    """Return what a job's handler answers within the policy's time.

    Raises:
        JobTimeoutError: the handler took longer.
    """
    limit_s = job.policy.timeout.total_seconds()
    deadline = asyncio.timeout(limit_s)
    try:
        async with deadline:
            return await job.handler(context, payload)
    except TimeoutError:
        if deadline.expired():
            raise JobTimeoutError(f"ran longer than {limit_s:g} s") from None
        raise
