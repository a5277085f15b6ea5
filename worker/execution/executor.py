"""One delivery, top to bottom: fetch, parse, run in one transaction, finalize, commit; or decide.

Dispatch is at least once; what a job writes happens once per id, because the statement that makes
the job final commits together with what the handler wrote. Everything else here follows from it:
a delivery may be repeated, cut short or lost at any point.
"""

import asyncio
import random
import time
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson

from db.engine import create_sessions
from db.execution import Failure, Record
from db.pauses import Pauses
from db.probe import ServerProbe
from jobs import registry
from jobs._progress import show_nobody
from jobs._queue import QUEUE
from worker.execution import failures
from worker.execution.attempts import Attempts, Kept, send_nothing
from worker.execution.commit import (
    CommitWindow,
    cancels_so_far,
    is_own_cancel,
    shielded_commit,
)
from worker.execution.failures import FailureRecorder, Setback
from worker.execution.job_events import emit_outcome, emit_retry, emit_slice
from worker.execution.limits import Limits
from worker.execution.outcome import (
    Continued,
    Finished,
    Later,
    Outcome,
    Superseded,
    outcome_in,
)
from worker.execution.payloads import describe_error, parse
from worker.execution.retry import (
    CRASHES_MAX,
    MAY_BE_THE_SERVERS,
    Cause,
    cause_of,
    diagnose,
    named_cause,
    wait_in_place,
)
from worker.execution.run import Run, not_due
from worker.execution.semaphores import KeyedSemaphores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractAsyncContextManager
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

    from db.execution import JobRef, Stored
    from db.store import Store
    from jobs import Job, Payload
    from jobs._progress import ShowProgress
    from jobs._services import Services
    from worker.execution.attempts import Send
    from worker.execution.delivery import Delivery
    from worker.execution.error_text import ErrorText
    from worker.monitoring.events import Events

    Instrument = Callable[[JobRef, int], AbstractAsyncContextManager[None]]
    """Given a job and the number of its delivery, returns what to enter around the run."""

SUPERSEDED_RETRY: Final = timedelta(seconds=2)
PAUSED_DELAY: Final = timedelta(days=1)
"""Until a job of a paused kind is looked at again, unless the relay brings it forward."""
SUPERSEDED_MAX: Final = 2
"""How often a delivery begins anew because the row holds another payload."""
ABORT_WAIT_S: Final = 5.0
ABORT_RETRY: Final = timedelta(seconds=1)
ATTEMPT_MARGIN_S: Final = 30.0
"""What one try may take beyond the job's timeout, for its connection, its fence and its commit.

With the look at the server and the failure's record it stays below the queue's own limit
(`arq_adapter.QUEUE_TIMEOUT_MARGIN`), which would otherwise strike where nothing is recorded.
"""

EXPIRED: Final = "expired"
"""The reason of a job that was cancelled because it had not begun in time."""


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
        jobs: by kind, those that a row may turn out to be; None: all that are registered.
        instrument: entered around every run, to count or to trace it.
        progress_of: given a job's id, returns what shows its progress.
        send: sends jobs that a handler enqueued to Redis, after their commit.
        limits: what takes permits for kinds with a limit; None: this process counts alone.
        is_paused: returns whether jobs of a kind must not begin.
        error_text: whether errors keep the values of payloads.
        jitter: uniform in [0, 1), spreads the waits.
    """

    def __init__(  # noqa: PLR0913 - what one process gives it, by name
        self,
        engine: "AsyncEngine",
        events: "Events",
        *,
        open_store: "Callable[[AsyncSession], Store]",
        services: "Services",
        jobs: "Mapping[str, Job] | None" = None,
        instrument: "Instrument" = no_instrument,
        progress_of: "Callable[[UUID], ShowProgress]" = lambda _job_id: show_nobody,
        send: "Send" = send_nothing,
        limits: Limits | None = None,
        is_paused: "Callable[[str], bool]" = lambda _kind: False,
        error_text: "ErrorText" = "redacted",
        jitter: "Callable[[], float]" = random.random,
    ) -> None:
        self._sessions = sessions = create_sessions(engine)
        self._events = events
        self.jobs = registry() if jobs is None else jobs
        self._instrument = instrument
        self._limits = limits or Limits(None, QUEUE)
        self._is_paused = is_paused
        self._error_text = error_text
        self._jitter = jitter
        self._failures = FailureRecorder(sessions, events, jitter, kinds=self.jobs, send=send)
        self._probe = ServerProbe(engine)
        self._semaphores = KeyedSemaphores()
        self._attempts = Attempts(
            engine,
            jobs=self.jobs,
            open_store=open_store,
            services=services,
            progress_of=progress_of,
            send=send,
        )

    async def run(self, job: "Job | None", delivery: "Delivery") -> Outcome:
        """Run one delivery to its outcome, whatever the job does.

        Args:
            job: None where no job here has the delivery's kind.
            delivery: what came.

        Raises:
            asyncio.CancelledError: cut short before anything was committed.
        """
        cancels = cancels_so_far()
        try:
            async with self._instrument(delivery.job, delivery.try_number):
                return await self._run(Run(job, delivery), cancels)
        except BaseException as error:
            if is_own_cancel(error, cancels) or isinstance(error, GeneratorExit):
                raise
            return await self._failures.record_little(delivery, job)

    async def _run(self, run: Run, cancels: int) -> Outcome:
        while True:
            run.tries += 1
            step: Outcome | Superseded | None
            try:
                is_paused = self._is_paused(run.delivery.job.kind)
                step = await (self._hold_or_try(run) if is_paused else self._try(run))
            except BaseException as error:
                if is_own_cancel(error, cancels) or isinstance(error, GeneratorExit):
                    raise
                step = await self._after(error, run)
            if isinstance(step, Superseded):
                step = self._begin_anew(run, step.stored)
            if step is not None:
                return step

    def _begin_anew(self, run: Run, stored: "Stored") -> Later | None:
        if later := not_due(run.job, stored):
            return later
        run.superseded += 1
        run.kept = Kept()
        if run.superseded > SUPERSEDED_MAX:
            return Later(SUPERSEDED_RETRY)
        run.resume(stored, self.jobs)
        return None

    async def _try(self, run: Run) -> Outcome | Superseded:
        """Run the job once, from its row to its commit."""
        if run.needs_its_row and (ended := await self._open(run)):
            return ended
        payload = parse(run.job, run.delivery, self._error_text)
        if run.job is None or payload is None or isinstance(payload, Failure):
            return await self._refuse(run, payload)
        async with self._limits.hold(run.job, payload, run.delivery) as wait_s:
            if wait_s:
                return Later(timedelta(seconds=wait_s))
            return await self._take_turn(run, run.job, payload)

    async def _take_turn(self, run: Run, job: "Job", payload: "Payload") -> Outcome | Superseded:
        """Run the job once it has its keys for itself."""
        run.window = window = CommitWindow()
        delivery = run.delivery
        keys, insists = payload.conflict_keys(), run.tries > 1
        async with self._semaphores.hold(keys, delivery.slot, insists=insists) as away_s:
            if away_s:
                return Later(timedelta(seconds=away_s * (1 + self._jitter())))
            run.began_at = run.began_at or time.monotonic()
            attempt = partial(self._attempts.run, job, payload, delivery, run.kept)
            limit_s = job.policy.timeout.total_seconds() + ATTEMPT_MARGIN_S
            outcome = await shielded_commit(attempt, window=window, limit_s=limit_s)
        if isinstance(outcome, Superseded):
            return outcome
        if isinstance(outcome, Continued):
            emit_slice(self._events, run.delivery)
            return Later(outcome.delay)
        if isinstance(outcome, Finished) and outcome.state == "completed":
            self._failures.clear_blocked(job.kind)
        return emit_outcome(self._events, run.delivery, outcome)

    async def _hold_or_try(self, run: Run) -> Outcome | Superseded | None:
        """Set a job of a paused kind apart; run it where it is over, or the pause is."""
        delivery = run.delivery
        async with self._sessions() as session, session.begin():
            pauses = Pauses(session)
            is_held = await pauses.hold(delivery.job, delivery.crashes, by_id=delivery.by_id)
        return Later(PAUSED_DELAY) if is_held else await self._try(run)

    async def _open(self, run: Run) -> Outcome | None:
        """Go on with what the job's row has; it gets one if it came without, and has none.

        Returns:
            An outcome where the job is final already, or its processes died too often.
        """
        delivery = run.delivery
        async with self._sessions() as session:
            record = Record(session)
            stored = await record.find(delivery.job)
            lacks_row = stored is None and not delivery.by_id
            if lacks_row or (stored is not None and stored.crashes < delivery.crashes):
                expires_in = run.expires_in
                await record.open(delivery.job, delivery.crashes, expires_in=expires_in)
                await session.commit()
                stored = await record.find(delivery.job)
            if stored is not None and stored.is_expired and run.tries == 1:
                return await self._expire(session, delivery)
        if stored is None:
            fault = "there is neither a payload nor a record of this job"
            run.delivery = replace(delivery, by_id=False, fault=fault)
            return None
        ended = outcome_in(stored, delivery, run.job)
        if ended is not None and not isinstance(ended, Superseded):
            return emit_outcome(self._events, delivery, ended)
        if ended is not None:
            run.kept = Kept()
        if later := not_due(run.job, stored):
            return later
        run.resume(stored, self.jobs)
        # A lease counts itself until it ends.
        return await self._end_if_deadly(run, stored.crashes - stored.is_leased)

    async def _expire(self, session: "AsyncSession", delivery: "Delivery") -> Outcome:
        """End a job that has not begun in time."""
        if not await Record(session).cancel(delivery.job, EXPIRED):
            return Later(SUPERSEDED_RETRY)
        await session.commit()
        outcome = Finished("cancelled", {"reason": EXPIRED})
        return emit_outcome(self._events, delivery, outcome)

    async def _end_if_deadly(self, run: Run, died: int) -> Outcome | None:
        if died < CRASHES_MAX:
            return None
        setback = Setback(failures.worker_died(died), Cause.HOPELESS)
        ended = await self._failures.record(run.delivery, run.job, setback)
        return Later(SUPERSEDED_RETRY) if isinstance(ended, Superseded) else ended

    async def _after(self, error: BaseException, run: Run) -> Outcome | Superseded | None:
        """Return the outcome after a failed try, or None to run again at once."""
        diagnosis = diagnose(error)
        wait_s = wait_in_place(
            diagnosis, tries=run.tries, elapsed_s=run.elapsed_s, jitter=self._jitter()
        )
        if wait_s is not None:
            emit_retry(self._events, "job.run_again", run.delivery, diagnosis)
            await asyncio.sleep(wait_s)
            return None
        server_is_away = diagnosis.trouble in MAY_BE_THE_SERVERS and await self._probe.is_away()
        handler_began = run.window.entered
        cause = cause_of(diagnosis, server_is_away=server_is_away, handler_began=handler_began)
        if cause is Cause.OWN and run.job is not None:
            cause = named_cause(error, run.job.policy.retry)
        setback = Setback(
            describe_error(error, run.job, run.delivery, self._error_text), cause, diagnosis
        )
        return await self._failures.record(run.delivery, run.job, setback)

    async def _refuse(self, run: Run, why: "Payload | Failure | None") -> Outcome | Superseded:
        """Record a delivery that this code cannot run: for a newer worker, or as dead."""
        delivery = run.delivery
        if not isinstance(why, Failure):
            setback = Setback(failures.unknown_kind(delivery.job.kind), Cause.NEWER_WORKER)
        elif (
            run.job is not None
            and delivery.fault is None
            and await self._fits_newer(run.job, delivery)
        ):
            setback = Setback(why, Cause.NEWER_WORKER)
        else:
            setback = Setback(why, Cause.HOPELESS)
        return await self._failures.record(delivery, run.job, setback)

    async def _fits_newer(self, job: "Job", delivery: "Delivery") -> bool:
        schema = orjson.dumps(job.payload.model_json_schema()).decode()
        async with self._sessions() as session:
            return await Record(session).fits_another_version(delivery.job, schema)

    async def cancel(self, delivery: "Delivery", reason: str) -> Outcome:
        """Cancel a job, and return what its row says then.

        Returns:
            `Finished`: cancelled now, or what it had ended as before. `Later`: the row could not be
            written, so nobody may be told that the job will not take effect.
        """
        cancels = cancels_so_far()
        try:
            async with asyncio.timeout(ABORT_WAIT_S), self._sessions() as session:
                record = Record(session)
                cancelled = await record.cancel(delivery.job, reason)
                await session.commit()
                stored = await record.find(delivery.job)
        except BaseException as error:
            if is_own_cancel(error, cancels):
                raise
            self._events.emit("job.abort_unrecorded", error=type(error).__name__)
            return Later(ABORT_RETRY)
        if cancelled:
            self._events.emit("job.aborted", job_id=str(delivery.job.id))
        if stored is None or stored.state == "queued":
            return Later(ABORT_RETRY)  # deleted, or replayed, in this moment
        return Finished(stored.state, stored.result, replayed=not cancelled)
