"""The life of one delivery: parse, run in one transaction, turn the fence, commit, or decide.

Dispatch is at least once; what a job writes happens once per id, because the statement that makes
the job final commits together with what the handler wrote. Everything else here follows from it:
a delivery may be repeated, cut short or lost at any point.
"""

import asyncio
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError

from db.record import Failure, FinalState, Record, Stored
from db.store import Store
from jobs import Cancel, Context, Rejected, Snooze
from worker import failures
from worker.delivery import job_id_of, with_payload
from worker.protected import CommitWindow, run_protected
from worker.retry import (
    Bury,
    Diagnosis,
    JobTimeoutError,
    PutBack,
    RunAgain,
    SpendAttempt,
    Trouble,
    backoff,
    decide,
    diagnose,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from jobs import Job, Payload, Policy
    from worker.delivery import Delivery
    from worker.events import Events
    from worker.reports import Reports

UNRECORDED_RETRY: Final = timedelta(seconds=2)
HELD_ELSEWHERE_RETRY: Final = timedelta(seconds=1)
ABORT_WAIT_S: Final = 5.0
UNKNOWN_KIND_RETRY: Final = timedelta(seconds=15)
UNKNOWN_KIND_WAIT_MAX: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Finished:
    """The job is final: by this delivery, or by an earlier one."""

    state: FinalState
    result: Any
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """The job goes back to the queue."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Conflict:
    """The id belongs to a job with another payload; nothing was done."""


Outcome = Finished | Later | Conflict


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure does to the job's record."""

    dead: bool
    spent: int
    delay: timedelta = timedelta()


class Executor:
    """Runs deliveries; one per process, shared by all its jobs, holding nothing of any of them."""

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        events: "Events",
        reports: "Reports",
        luck: "Callable[[], float]" = random.random,
    ) -> None:
        self._sessions = sessions
        self._events = events
        self._reports = reports
        self._luck = luck

    async def run(self, job: "Job", delivery: "Delivery") -> Outcome:
        """Run one delivery to its outcome.

        Raises:
            asyncio.CancelledError: cut short before anything was committed.
        """
        for tries in count(1):
            try:
                delivery = await self._fetched(delivery)
                payload = _parse(job, delivery)
                if isinstance(payload, Failure):
                    return await self.bury(delivery, payload)
                attempt = partial(self._attempt, job, payload, delivery)
                return self._told(delivery, await run_protected(attempt))
            except Exception as error:  # noqa: BLE001 - the table decides about every exception
                outcome = await self._after(error, job, delivery, tries)
                if outcome is not None:
                    return outcome
        raise AssertionError("unreachable: the retry table ends every loop")

    async def bury(self, delivery: "Delivery", failure: Failure) -> Outcome:
        """Record a delivery that no retry can help as dead, its payload kept."""
        return await self._record(delivery, failure, _always_dead)

    async def wait_for_worker(self, delivery: "Delivery") -> Outcome:
        """Put a job back whose kind this worker does not know, visibly, for a day at most."""
        try:
            delivery = await self._fetched(delivery)
        except Exception as error:  # noqa: BLE001 - nothing was done yet, so it simply waits
            self._tell("job.unrecorded", delivery, diagnose(error))
            return Later(UNRECORDED_RETRY)
        age = datetime.now(UTC) - delivery.job.enqueued_at
        if age > UNKNOWN_KIND_WAIT_MAX:
            return await self.bury(delivery, failures.unknown_kind(delivery.job.kind))
        self._events.emit("job.unknown_kind", job_id=str(delivery.job.id), kind=delivery.job.kind)
        return await self._record(
            delivery, failures.unknown_kind(delivery.job.kind), _waiting_for_worker
        )

    async def abort(self, redis_id: str) -> None:
        """Cancel a job in the record because a client aborted it; best effort, never raises."""
        try:
            async with asyncio.timeout(ABORT_WAIT_S), self._sessions() as session, session.begin():
                cancelled = await Record(session).cancel(job_id_of(redis_id), "aborted by a client")
        except Exception as error:  # noqa: BLE001 - Redis has the abort; the record may lag behind
            self._events.emit("job.abort_unrecorded", error=type(error).__name__)
            return
        if cancelled:
            self._events.emit("job.aborted", job_id=str(job_id_of(redis_id)))

    async def _fetched(self, delivery: "Delivery") -> "Delivery":
        """Return the delivery with its payload, from the record where only the id was sent."""
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
        """Run the handler and the fence in one transaction of a session of their own."""
        async with self._sessions() as session:
            if delivery.try_number > 1 and (settled := await _settled(session, delivery)):
                return settled
            if _needs_row(job, delivery) and not await Record(session).hold(delivery.job.id):
                return Later(HELD_ELSEWHERE_RETRY)
            answer = await self._handle(job, payload, delivery, session)
            if isinstance(answer, Snooze):
                return await self._snooze(session, delivery, answer, window)
            state, result = _verdict(answer)
            if state != "completed" or job.policy.snapshot:
                # A refusal keeps nothing of what the handler wrote, and a read-only snapshot can
                # keep nothing: either way the outcome goes into a transaction of its own.
                await session.rollback()
            if not await Record(session).finish(delivery.job, state, result):
                await session.rollback()
                return await _lost(session, delivery)
            window.open()
            await session.commit()
            return Finished(state, result)

    async def _handle(
        self, job: "Job", payload: "Payload", delivery: "Delivery", session: "AsyncSession"
    ) -> object:
        if job.policy.snapshot:
            await session.connection(
                execution_options={
                    "isolation_level": "REPEATABLE READ",
                    "postgresql_readonly": True,
                }
            )
        context = Context(
            job_id=delivery.job.id,
            try_number=delivery.try_number,
            enqueued_at=delivery.job.enqueued_at,
            store=Store(session),
            reports=self._reports,
        )
        async with _deadline(job.policy.timeout):
            return await job.handler(context, payload)

    async def _snooze(
        self, session: "AsyncSession", delivery: "Delivery", snooze: Snooze, window: CommitWindow
    ) -> Outcome:
        await session.rollback()
        if not await Record(session).postpone(delivery.job, snooze.delay):
            await session.rollback()
            return await _lost(session, delivery)
        window.open()
        await session.commit()
        return Later(snooze.delay)

    async def _after(
        self, error: Exception, job: "Job", delivery: "Delivery", tries: int
    ) -> Outcome | None:
        """Return the outcome after a failed try, or None to run again at once."""
        diagnosis = diagnose(error)
        decision = decide(
            diagnosis, tries_in_place=tries, try_number=delivery.try_number, luck=self._luck()
        )
        match decision:
            case RunAgain(delay_s):
                self._tell("job.run_again", delivery, diagnosis)
                await asyncio.sleep(delay_s)
                return None
            case PutBack(delay_s):
                self._tell("job.put_back", delivery, diagnosis)
                return Later(timedelta(seconds=delay_s))
            case SpendAttempt():
                rule = partial(_after_failure, job.policy, self._luck())
                return await self._record(delivery, failures.describe(error), rule)
            case Bury():
                return await self.bury(delivery, failures.describe(error))

    async def _record(
        self, delivery: "Delivery", failure: Failure, rule: "Callable[[int], Verdict]"
    ) -> Outcome:
        """Record a failure. The record is asked first: it may say that the job is done."""
        try:
            note = partial(self._note, delivery, failure, rule)
            return self._told(delivery, await run_protected(note))
        except Exception as error:  # noqa: BLE001 - a failure to record is never the job's failure
            self._tell("job.unrecorded", delivery, diagnose(error))
            return Later(UNRECORDED_RETRY)

    async def _note(
        self,
        delivery: "Delivery",
        failure: Failure,
        rule: "Callable[[int], Verdict]",
        window: CommitWindow,
    ) -> Outcome:
        async with self._sessions() as session:
            record = Record(session)
            stored = await record.find(delivery.job)
            if stored is not None and (lost := _lost_to(stored)):
                return lost
            verdict = rule(stored.attempts if stored else 0)
            error = failure.as_json(delivery.try_number, datetime.now(UTC))
            if not await record.note_failure(
                delivery.job,
                error,
                state="dead" if verdict.dead else "queued",
                spent=verdict.spent,
                delay=verdict.delay,
            ):
                await session.rollback()
                return await _lost(session, delivery)
            window.open()
            await session.commit()
        if verdict.dead:
            return Finished("dead", error)
        if verdict.spent:
            self._tell("job.failed", delivery, Diagnosis(Trouble.FAILURE, failure.sqlstate))
        return Later(verdict.delay)

    def _told(self, delivery: "Delivery", outcome: Outcome) -> Outcome:
        """Emit what became of a delivery, and pass it on."""
        about = {
            "job_id": str(delivery.job.id),
            "kind": delivery.job.kind,
            "run_s": round(time.monotonic() - delivery.started_at, 6),
        }
        match outcome:
            case Finished(replayed=True, state=state):
                self._events.emit("job.duplicate", state=state, **about)
            case Finished(state="dead"):
                self._events.emit("job.dead", try_number=delivery.try_number, **about)
            case Finished(state=state):
                self._events.emit(
                    "job.finished",
                    state=state,
                    try_number=delivery.try_number,
                    wait_s=delivery.wait_s,
                    **about,
                )
            case Conflict():
                self._events.emit("job.conflict", **about)
            case Later():
                pass
        return outcome

    def _tell(self, event: str, delivery: "Delivery", diagnosis: Diagnosis) -> None:
        self._events.emit(
            event,
            job_id=str(delivery.job.id),
            kind=delivery.job.kind,
            try_number=delivery.try_number,
            trouble=diagnosis.trouble.value,
            sqlstate=diagnosis.sqlstate,
        )


def _needs_row(job: "Job", delivery: "Delivery") -> bool:
    """Tell whether the row must be locked; a snapshot cannot, and may publish the same twice."""
    return delivery.exclusive and not job.policy.snapshot


def _after_failure(policy: "Policy", luck: float, attempts_before: int) -> Verdict:
    attempts = attempts_before + 1
    if attempts >= policy.attempts_max:
        return Verdict(dead=True, spent=1)
    return Verdict(dead=False, spent=1, delay=backoff(policy, attempts, luck))


def _always_dead(_attempts_before: int) -> Verdict:
    return Verdict(dead=True, spent=1)


def _waiting_for_worker(_attempts_before: int) -> Verdict:
    return Verdict(dead=False, spent=0, delay=UNKNOWN_KIND_RETRY)


def _parse(job: "Job", delivery: "Delivery") -> "Payload | Failure":
    if delivery.fault is not None:
        return failures.invalid_payload(delivery.fault)
    try:
        return job.payload.from_wire(delivery.raw)
    except ValidationError as error:
        return failures.invalid_payload(failures.validation_message(error))


@asynccontextmanager
async def _deadline(limit: timedelta) -> "AsyncIterator[None]":
    deadline = asyncio.timeout(limit.total_seconds())
    try:
        async with deadline:
            yield
    except TimeoutError:
        if deadline.expired():
            raise JobTimeoutError(f"ran longer than {limit.total_seconds():g} s") from None
        raise


def _verdict(answer: object) -> tuple[FinalState, Any]:
    """Translate a handler's answer into the record's words."""
    match answer:
        case Rejected(code, message):
            return "rejected", {"code": code, "message": message}
        case Cancel(reason):
            return "cancelled", {"reason": reason}
        case BaseModel():
            return "completed", answer.model_dump(mode="json")
        case None:
            return "completed", None
        case _:
            raise TypeError(
                f"a handler answers a Result or a decision, not {type(answer).__name__}"
            )


async def _settled(session: "AsyncSession", delivery: "Delivery") -> Outcome | None:
    """Return the outcome that an earlier delivery left, if there is one."""
    stored = await Record(session).find(delivery.job)
    return None if stored is None else _lost_to(stored)


async def _lost(session: "AsyncSession", delivery: "Delivery") -> Outcome:
    """Return what the fence lost to. The session must have been rolled back."""
    stored = await Record(session).find(delivery.job)
    outcome = None if stored is None else _lost_to(stored)
    if outcome is None:
        # The row was there a moment ago and is queued or gone now: somebody replayed it.
        return Later(UNRECORDED_RETRY)
    return outcome


def _lost_to(stored: Stored) -> Outcome | None:
    if not stored.same_payload:
        return Conflict()
    if stored.state == "queued":
        return None
    return Finished(stored.state, stored.result, replayed=True)
