"""One delivery, top to bottom: fetch, parse, run in one transaction, finalize, commit; or decide.

Dispatch is at least once; what a job writes happens once per id, because the statement that makes
the job final commits together with what the handler wrote. Everything else here follows from it:
a delivery may be repeated, cut short or lost at any point.
"""

import asyncio
import random
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Final

import orjson
from pydantic import ValidationError

from db.engine import ONE_MOMENT, create_sessions
from db.execution import Failure, Record
from db.transaction import JobTransaction, snapshot_session
from jobs import Context
from jobs._payload import validation_message
from jobs._progress import show_nobody
from jobs._wire import job_id_of
from worker.execution import failures
from worker.execution.commit import CommitWindow, shielded_commit
from worker.execution.delivery import with_payload
from worker.execution.failures import FailureRecorder
from worker.execution.job_events import emit_outcome, emit_retry
from worker.execution.outcome import (
    Finished,
    Later,
    Outcome,
    keeps_effects,
    lost,
    outcome_of,
    settled,
)
from worker.execution.retry import (
    JobTimeoutError,
    MarkDead,
    PutBack,
    RunAgain,
    SpendAttempt,
    decide,
    diagnose,
)
from worker.execution.semaphores import KeyedSemaphores

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from db.execution import JobRef
    from db.store import Store
    from jobs import Job, Payload, Policy
    from jobs._progress import ShowProgress
    from jobs._services import Services
    from worker.execution.delivery import Delivery
    from worker.monitoring.events import Events

    Instrument = Callable[[JobRef, int], AbstractAsyncContextManager[None]]
    """Given a job and the number of its delivery, returns what to enter around the run."""

HELD_ELSEWHERE_RETRY: Final = timedelta(seconds=1)
ABORT_WAIT_S: Final = 5.0


def no_instrument(_job: "JobRef", _try_number: int) -> "AbstractAsyncContextManager[None]":
    """Observe nothing."""
    return nullcontext()


class Executor:
    """Runs deliveries; one per process, shared by all its jobs, and keeps nothing of any of them.

    Args:
        engine: where jobs and their effects are.
        events: what happens is emitted there.
        open_store: given a session, returns what handlers call `ctx.store`.
        services: what handlers call `ctx.services`.
        instrument: entered around every run, to count or to trace it.
        progress_of: given a job's id, returns what shows its progress.
        jitter: uniform in [0, 1), spreads the waits.
    """

    def __init__(  # noqa: PLR0913 - what one process gives it, by name
        self,
        engine: "AsyncEngine",
        events: "Events",
        *,
        open_store: "Callable[[AsyncSession], Store]",
        services: "Services",
        instrument: "Instrument" = no_instrument,
        progress_of: "Callable[[UUID], ShowProgress]" = lambda _job_id: show_nobody,
        jitter: "Callable[[], float]" = random.random,
    ) -> None:
        self._engine = engine
        self._sessions = sessions = create_sessions(engine)
        self._events = events
        self._open_store = open_store
        self._services = services
        self._instrument = instrument
        self._progress_of = progress_of
        self._jitter = jitter
        self._failures = FailureRecorder(sessions, events)
        self._semaphores = KeyedSemaphores()

    async def run(self, job: "Job", delivery: "Delivery") -> Outcome:
        """Run one delivery to its outcome.

        Raises:
            asyncio.CancelledError: cut short before anything was committed.
        """
        async with self._instrument(delivery.job, delivery.try_number):
            return await self._run(job, delivery)

    async def _run(self, job: "Job", delivery: "Delivery") -> Outcome:
        for tries in count(1):
            try:
                delivery = await self._fetch_payload(delivery)
                payload = _parse(job, delivery)
                if isinstance(payload, Failure):
                    return await self._refuse_payload(job, delivery, payload)
                attempt = partial(self._attempt, job, payload, delivery)
                async with self._semaphores.hold(payload.conflict_keys()):
                    outcome = await shielded_commit(attempt)
                return emit_outcome(self._events, delivery, outcome)
            except Exception as error:  # noqa: BLE001 - the table decides about every exception
                decided = await self._decide(error, job, delivery, tries)
                if decided is not None:
                    return decided
        raise AssertionError("unreachable: the retry table ends every loop")

    async def _fetch_payload(self, delivery: "Delivery") -> "Delivery":
        """Return the delivery with its payload, read from the job's row if only the id came."""
        if not delivery.by_id:
            return delivery
        async with self._sessions() as session:
            row = await Record(session).find_payload(delivery.job.id)
        if row is None:
            return replace(delivery, fault="there is neither a payload nor a record of this job")
        job = replace(delivery.job, enqueued_at=row.enqueued_at)
        return with_payload(replace(delivery, job=job, by_id=False), row.payload)

    async def _attempt(
        self, job: "Job", payload: "Payload", delivery: "Delivery", window: CommitWindow
    ) -> Outcome:
        """Run the handler and finalize the job, in one transaction of their own."""
        if job.policy.snapshot:
            return await self._attempt_snapshot(job, payload, delivery, window)
        async with JobTransaction(self._engine, job.policy.timeout) as transaction:
            session = transaction.session
            if delivery.try_number > 1 and (ended := await settled(session, delivery)):
                return ended
            if delivery.exclusive and not await Record(session).hold(delivery.job.id):
                return Later(HELD_ELSEWHERE_RETRY)
            answer = await self._call_handler(job, payload, delivery, session)
            await transaction.conclude()
            outcome = outcome_of(answer)
            if not keeps_effects(outcome):
                await transaction.restart()
            return await _conclude(transaction, delivery, job.policy, outcome, window)

    async def _attempt_snapshot(
        self, job: "Job", payload: "Payload", delivery: "Delivery", window: CommitWindow
    ) -> Outcome:
        """Run a handler that only reads, one moment of the database; then finalize the job.

        It cannot lock its row meanwhile, so two workers may publish the same twice.
        """
        async with snapshot_session(self._engine, job.policy.timeout) as session:
            if delivery.try_number > 1 and (ended := await settled(session, delivery)):
                return ended
            # A snapshot begins with its transaction, and a redelivery has looked the row up.
            await session.rollback()
            await session.connection(execution_options=ONE_MOMENT)
            outcome = outcome_of(await self._call_handler(job, payload, delivery, session))
        async with JobTransaction(self._engine) as transaction:
            return await _conclude(transaction, delivery, job.policy, outcome, window)

    async def _call_handler(
        self, job: "Job", payload: "Payload", delivery: "Delivery", session: "AsyncSession"
    ) -> object:
        context = Context(
            job_id=delivery.job.id,
            try_number=delivery.try_number,
            enqueued_at=delivery.job.enqueued_at,
            store=self._open_store(session),
            services=self._services,
            progress=self._progress_of(delivery.job.id),
        )
        return await call_handler(job, context, payload)

    async def _decide(
        self, error: Exception, job: "Job", delivery: "Delivery", tries: int
    ) -> Outcome | None:
        """Return the outcome after a failed try, or None to run again at once."""
        diagnosis = diagnose(error)
        decision = decide(
            diagnosis, tries_in_place=tries, try_number=delivery.try_number, jitter=self._jitter()
        )
        match decision:
            case RunAgain(delay_s):
                emit_retry(self._events, "job.run_again", delivery, diagnosis)
                await asyncio.sleep(delay_s)
                return None
            case PutBack(delay_s):
                emit_retry(self._events, "job.put_back", delivery, diagnosis)
                return Later(timedelta(seconds=delay_s))
            case SpendAttempt():
                failure = failures.describe(error)
                return await self._failures.spend_attempt(
                    delivery, failure, job.policy, self._jitter()
                )
            case MarkDead():
                return await self._failures.mark_dead(delivery, failures.describe(error))

    async def _refuse_payload(self, job: "Job", delivery: "Delivery", failure: Failure) -> Outcome:
        """Record a payload that this code does not take: for a newer worker, or as dead."""
        schema = orjson.dumps(job.payload.model_json_schema()).decode()
        async with self._sessions() as session:
            newer = await Record(session).fits_another_version(delivery.job, schema)
        if newer and delivery.fault is None:
            return await self._failures.wait_for_newer_worker(delivery, failure)
        return await self._failures.mark_dead(delivery, failure)

    async def mark_dead(self, delivery: "Delivery", failure: Failure) -> Outcome:
        """Record a delivery that is no job at all as dead, with what it was."""
        return await self._failures.mark_dead(delivery, failure)

    async def wait_for_worker(self, delivery: "Delivery") -> Outcome:
        """Put a job back whose kind this worker does not know."""
        try:
            delivery = await self._fetch_payload(delivery)
        except Exception as error:  # noqa: BLE001 - nothing was done yet, so it simply waits
            return self._failures.unrecorded(delivery, error)
        unknown = failures.unknown_kind(delivery.job.kind)
        return await self._failures.wait_for_newer_worker(delivery, unknown)

    async def abort(self, redis_id: str) -> None:
        """Cancel a job in its row because a client aborted it; best effort, never raises."""
        try:
            async with asyncio.timeout(ABORT_WAIT_S), self._sessions() as session, session.begin():
                cancelled = await Record(session).cancel(job_id_of(redis_id), "aborted by a client")
        except Exception as error:  # noqa: BLE001 - Redis has the abort; the row may lag behind
            self._events.emit("job.abort_unrecorded", error=type(error).__name__)
            return
        if cancelled:
            self._events.emit("job.aborted", job_id=str(job_id_of(redis_id)))


def _parse(job: "Job", delivery: "Delivery") -> "Payload | Failure":
    if delivery.fault is not None:
        return failures.invalid_payload(delivery.fault)
    try:
        return job.payload.model_validate_json(delivery.job.payload_json)
    except ValidationError as error:
        return failures.invalid_payload(validation_message(error))


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


async def _conclude(
    transaction: JobTransaction,
    delivery: "Delivery",
    policy: "Policy",
    outcome: Finished | Later,
    window: CommitWindow,
) -> Outcome:
    """Write the outcome and commit, unless another worker finished first."""
    record = Record(transaction.session)
    if isinstance(outcome, Later):
        won = await record.postpone(delivery.job, outcome.delay)
    else:
        won = await record.finish(
            delivery.job,
            outcome.state,
            outcome.result,
            purgeable=policy.kept_for is not None,
        )
    if not won:
        await transaction.restart()
        return await lost(transaction.session, delivery)
    window.open()
    await transaction.commit()
    return outcome
