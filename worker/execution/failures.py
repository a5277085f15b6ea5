"""Failures: what is kept of an error, and what each one does to the job's row.

A row's `errors` have enough to act on and nothing private. Constraint violations quote the
offending value in their DETAIL, and validation errors could quote the input: neither is kept.

The row is read before a failure is written. An exception may only mean that the job is done
already.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from asyncpg.exceptions import PostgresError
from sqlalchemy.exc import DBAPIError

from db.errors import Diagnosis, Trouble, diagnose, sqlstate_of
from db.execution import Failure, Record
from worker.execution.commit import CommitWindow, shielded_commit
from worker.execution.job_events import emit_outcome, emit_retry
from worker.execution.outcome import Finished, Later, Outcome, lost, outcome_in
from worker.execution.retry import backoff

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from jobs import Policy
    from worker.execution.delivery import Delivery
    from worker.monitoring.events import Events

MESSAGE_CHARACTERS_MAX: Final = 500

UNRECORDED_RETRY: Final = timedelta(seconds=2)
NEWER_WORKER_RETRY: Final = timedelta(seconds=15)
NEWER_WORKER_WAIT_MAX: Final = timedelta(days=1)


def describe(error: BaseException) -> Failure:
    """Return what is kept of an exception."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    message = str(cause)
    if isinstance(error, DBAPIError | PostgresError):
        # Only the first line: DETAIL, on the second, quotes values.
        message = message.partition("\n")[0].rpartition(">: ")[2]
    return Failure(type(cause).__name__, message[:MESSAGE_CHARACTERS_MAX], sqlstate_of(error))


def invalid_payload(message: str) -> Failure:
    """Return the failure of a payload that does not fit its kind."""
    return Failure("InvalidPayload", message[:MESSAGE_CHARACTERS_MAX])


def not_a_job() -> Failure:
    """Return the failure of a queue entry that is no job at all."""
    return Failure(
        "MalformedJob",
        "not a job in JSON: give the arq client a JSON serializer, as in the README",
    )


def unknown_kind(kind: str) -> Failure:
    """Return the note on a job that waits for a worker that knows its kind."""
    return Failure("UnknownKind", f"no worker here knows the kind {kind[:100]!r}")


@dataclass(frozen=True, slots=True)
class Consequence:
    """What a failure does to the job's row."""

    dead: bool
    spent: int
    """Attempts used up, 0 or 1."""
    delay: timedelta = timedelta()
    """Until the next try, unless the job is dead."""


def after_failure(policy: "Policy", jitter: float, attempts_before: int) -> Consequence:
    """Return what a job's own failure does: another try after a backoff, or the end."""
    attempts = attempts_before + 1
    if attempts >= policy.attempts_max:
        return Consequence(dead=True, spent=1)
    return Consequence(dead=False, spent=1, delay=backoff(policy, attempts, jitter))


def _always_dead(_attempts_before: int) -> Consequence:
    return Consequence(dead=True, spent=1)


def _waits_for_worker(_attempts_before: int) -> Consequence:
    return Consequence(dead=False, spent=0, delay=NEWER_WORKER_RETRY)


class FailureRecorder:
    """Writes failures into the jobs' rows; one per process, beside the executor."""

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
        """Report that PostgreSQL could not be reached; nothing was written, so the job waits."""
        emit_retry(self._events, "job.unrecorded", delivery, diagnose(error))
        return Later(UNRECORDED_RETRY)

    async def _record(
        self, delivery: "Delivery", failure: Failure, rule: "Callable[[int], Consequence]"
    ) -> Outcome:
        try:
            outcome = await shielded_commit(partial(self._write, delivery, failure, rule))
        except Exception as error:  # noqa: BLE001 - a failure to record is never the job's failure
            return self.unrecorded(delivery, error)
        return emit_outcome(self._events, delivery, outcome)

    async def _write(
        self,
        delivery: "Delivery",
        failure: Failure,
        rule: "Callable[[int], Consequence]",
        window: CommitWindow,
    ) -> Outcome:
        async with self._sessions() as session:
            record = Record(session)
            stored = await record.find(delivery.job)
            if stored is not None and (ended := outcome_in(stored)):
                return ended
            consequence = rule(stored.attempts if stored else 0)
            error = failure.as_json(delivery.try_number, datetime.now(UTC))
            if not await record.note_failure(
                delivery.job,
                error,
                state="dead" if consequence.dead else "queued",
                spent=consequence.spent,
                delay=consequence.delay,
            ):
                await session.rollback()
                return await lost(session, delivery)
            window.open()
            await session.commit()
        if consequence.dead:
            return Finished("dead", error)
        if consequence.spent:
            failed = Diagnosis(Trouble.FAILURE, failure.sqlstate)
            emit_retry(self._events, "job.failed", delivery, failed)
        return Later(consequence.delay)
