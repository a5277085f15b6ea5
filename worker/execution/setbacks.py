"""Failures go into the record: with what is left of the job's attempts, or as its end.

The record is asked first. An exception may only mean that the job is done already.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from db.errors import Diagnosis, Trouble, diagnose
from db.execution import Failure, Record
from worker.execution.commit import CommitWindow, run_protected
from worker.execution.job_events import tell_outcome, tell_trouble
from worker.execution.outcome import Finished, Later, Outcome, lost, lost_to
from worker.execution.retry import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from jobs import Policy
    from worker.execution.delivery import Delivery
    from worker.monitoring.events import Events

UNRECORDED_RETRY: Final = timedelta(seconds=2)
NEWER_WORKER_RETRY: Final = timedelta(seconds=15)
NEWER_WORKER_WAIT_MAX: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a failure does to the job's record."""

    dead: bool
    spent: int
    delay: timedelta = timedelta()


class Setbacks:
    """Writes failures down; one per process, beside the executor."""

    def __init__(self, sessions: "async_sessionmaker[AsyncSession]", events: "Events") -> None:
        self._sessions = sessions
        self._events = events

    async def spend_attempt(
        self, delivery: "Delivery", failure: Failure, policy: "Policy", jitter: float
    ) -> Outcome:
        """Record a failed attempt: the job runs again after a backoff, or is dead."""
        return await self._record(delivery, failure, partial(after_failure, policy, jitter))

    async def mark_dead(self, delivery: "Delivery", failure: Failure) -> Outcome:
        """Record a delivery that no retry can help as dead, its payload kept."""
        return await self._record(delivery, failure, _always_dead)

    async def wait_for_newer_worker(self, delivery: "Delivery", failure: Failure) -> Outcome:
        """Put a job back that another version may run, visibly, for a day at most."""
        if datetime.now(UTC) - delivery.job.enqueued_at > NEWER_WORKER_WAIT_MAX:
            return await self.mark_dead(delivery, failure)
        self._events.emit(
            "job.waits_for_worker",
            job_id=str(delivery.job.id),
            kind=delivery.job.kind,
            error=failure.error,
        )
        return await self._record(delivery, failure, _waits_for_worker)

    def unrecorded(self, delivery: "Delivery", error: Exception) -> Outcome:
        """Tell that the record could not be reached; nothing was done, so the job waits."""
        tell_trouble(self._events, "job.unrecorded", delivery, diagnose(error))
        return Later(UNRECORDED_RETRY)

    async def _record(
        self, delivery: "Delivery", failure: Failure, rule: "Callable[[int], Verdict]"
    ) -> Outcome:
        try:
            outcome = await run_protected(partial(self._note, delivery, failure, rule))
        except Exception as error:  # noqa: BLE001 - a failure to record is never the job's failure
            return self.unrecorded(delivery, error)
        return tell_outcome(self._events, delivery, outcome)

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
            if stored is not None and (ended := lost_to(stored)):
                return ended
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
                return await lost(session, delivery)
            window.open()
            await session.commit()
        if verdict.dead:
            return Finished("dead", error)
        if verdict.spent:
            failed = Diagnosis(Trouble.FAILURE, failure.sqlstate)
            tell_trouble(self._events, "job.failed", delivery, failed)
        return Later(verdict.delay)


def after_failure(policy: "Policy", jitter: float, attempts_before: int) -> Verdict:
    """Return what a job's own failure does: another try after a backoff, or the end."""
    attempts = attempts_before + 1
    if attempts >= policy.attempts_max:
        return Verdict(dead=True, spent=1)
    return Verdict(dead=False, spent=1, delay=backoff(policy, attempts, jitter))


def _always_dead(_attempts_before: int) -> Verdict:
    return Verdict(dead=True, spent=1)


def _waits_for_worker(_attempts_before: int) -> Verdict:
    return Verdict(dead=False, spent=0, delay=NEWER_WORKER_RETRY)
