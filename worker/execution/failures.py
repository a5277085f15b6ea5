"""Failures: what each one does to the job's row, and how it is written there.

The row is read before a failure is written. An exception may only mean that the job is done
already.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from db.errors import Diagnosis, Trouble, diagnose
from db.execution import Failure, Record, Standing
from jobs import Retry
from worker.execution.commit import CommitWindow, shielded_commit
from worker.execution.error_text import MESSAGE_CHARACTERS_MAX, printable
from worker.execution.job_events import emit_blocked, emit_outcome, emit_retry
from worker.execution.on_dead import write_on_dead
from worker.execution.outcome import Finished, Later, Outcome, Superseded, lost, outcome_in
from worker.execution.retry import CRASHES_MAX, Cause, Decision, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from jobs import Job
    from jobs._wire import QueuedJob
    from worker.execution.attempts import Send
    from worker.execution.delivery import Delivery
    from worker.monitoring.events import Events

RECORD_WAIT_S: Final = 10.0
"""How long writing a failure may take; then the job goes back unrecorded."""

UNRECORDED_DELAY_S: Final = 2.0
UNRECORDED_DELAY_GROWTH: Final = 1.3
UNRECORDED_DELAY_MAX_S: Final = 30.0

UNSTORABLE: Final = '{"unstorable": true}'
"""Stands in for a payload that PostgreSQL refuses."""


def invalid_payload(message: str) -> Failure:
    """Return the failure of a payload that does not fit its kind."""
    return Failure("InvalidPayload", printable(message, MESSAGE_CHARACTERS_MAX))


def not_a_job() -> Failure:
    """Return the failure of a queue entry that is no job at all."""
    return Failure(
        "MalformedJob",
        "not a job in JSON: give the arq client a JSON serializer, as in the README",
    )


def unknown_kind(kind: str) -> Failure:
    """Return the note on a job that waits for a worker that knows its kind."""
    return Failure("UnknownKind", f"no worker here knows the kind {kind[:100]!r}")


def worker_died(crashes: int) -> Failure:
    """Return the failure of a job whose processes died while they ran it."""
    return Failure(
        "WorkerDied",
        f"{crashes} worker processes died while they ran it, and {CRASHES_MAX} are the limit: "
        "out of memory, a crash in a native library, or a call of os._exit?",
    )


_JUST_A_FAILURE: Final = Diagnosis(Trouble.FAILURE)


@dataclass(frozen=True, slots=True)
class Setback:
    """Why a run did not end the job."""

    failure: Failure
    cause: Cause
    diagnosis: Diagnosis = _JUST_A_FAILURE


class FailureRecorder:
    """Writes failures into the jobs' rows; one per process, beside the executor."""

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        events: "Events",
        jitter: "Callable[[], float]",
        *,
        kinds: "Collection[str]",
        send: "Send",
    ) -> None:
        self._sessions = sessions
        self._events = events
        self._jitter = jitter
        self._kinds = kinds
        self._send = send
        self._blocked: dict[str, str] = {}

    async def record(
        self, delivery: "Delivery", job: "Job | None", setback: Setback
    ) -> Outcome | Superseded:
        """Write what a setback does to the job: it runs again later, or is dead.

        Where PostgreSQL cannot be written, the delay alone is told, and the job runs again.
        """
        if setback.cause is Cause.OUTAGE:
            emit_retry(self._events, "job.put_back", delivery, setback.diagnosis)
            return Later(
                decide(Cause.OUTAGE, None, Standing(), Retry(), jitter=self._jitter()).delay
            )
        try:
            return await self._record(delivery, job, setback)
        except Exception as error:  # noqa: BLE001 - a failure to record is never the job's failure
            if diagnose(error).trouble not in {Trouble.FAILURE, Trouble.ALARM}:
                return self._unrecorded(delivery, error)
        return await self.record_little(delivery, job, setback.cause)

    async def record_little(
        self, delivery: "Delivery", job: "Job | None", cause: Cause = Cause.OWN
    ) -> Outcome:
        """Write what PostgreSQL takes for certain, after something that nobody foresaw."""
        setback = Setback(Failure("Unforeseen", "what happened could not be recorded"), cause)
        without_payload = replace(delivery.job, payload_json=UNSTORABLE, redis_id=None)
        outcome: Outcome | Superseded = Later(timedelta())
        for little in (delivery, replace(delivery, job=without_payload)):
            try:
                outcome = await self._record(little, job, setback, blindly=True)
                break
            except Exception as error:  # noqa: BLE001 - as above
                outcome = self._unrecorded(delivery, error)
        return Later(timedelta()) if isinstance(outcome, Superseded) else outcome

    def clear_blocked(self, kind: str) -> None:
        """Note that a job of this kind has completed: nothing blocks the kind any more."""
        if self._blocked and self._blocked.pop(kind, None) is not None:
            self._events.emit("kind.unblocked", kind=kind)

    def _unrecorded(self, delivery: "Delivery", error: BaseException) -> Later:
        """Report that nothing could be written, so that the job waits."""
        emit_retry(self._events, "job.unrecorded", delivery, diagnose(error))
        grown_s = UNRECORDED_DELAY_S * UNRECORDED_DELAY_GROWTH ** min(delivery.try_number - 1, 32)
        return Later(timedelta(seconds=min(UNRECORDED_DELAY_MAX_S, grown_s)))

    async def _record(
        self, delivery: "Delivery", job: "Job | None", setback: Setback, *, blindly: bool = False
    ) -> Outcome | Superseded:
        write = partial(self._write, delivery, job, setback, blindly)
        ended = await shielded_commit(write, limit_s=RECORD_WAIT_S)
        if isinstance(ended, Superseded):
            return ended
        if not isinstance(ended, Decision):
            return emit_outcome(self._events, delivery, ended)
        if ended.is_dead:
            entry = self._entry(delivery, setback)
            return emit_outcome(self._events, delivery, Finished("dead", entry))
        self._emit(delivery, setback, ended)
        return Later(ended.delay)

    async def _write(
        self,
        delivery: "Delivery",
        job: "Job | None",
        setback: Setback,
        blindly: bool,  # noqa: FBT001 - of `_record`
        window: CommitWindow,
    ) -> Outcome | Superseded | Decision:
        retry = Retry() if job is None else job.policy.retry
        async with self._sessions() as session:
            record = Record(session)
            stored = await record.find(delivery.job)
            ended = None if stored is None else outcome_in(stored, delivery, job)
            if ended is not None and not (blindly and isinstance(ended, Superseded)):
                return ended
            standing = stored.standing if stored else Standing()
            decision = decide(
                *(setback.cause, setback.diagnosis.sqlstate, standing, retry),
                jitter=self._jitter(),
            )
            to_send: Sequence[QueuedJob] = ()
            if decision.is_dead:
                to_send = await write_on_dead(
                    *(session, job, delivery, setback.failure),
                    kinds=self._kinds,
                    events=self._events,
                )
            noted = await record.note(
                delivery.job,
                decision.standing,
                state="dead" if decision.is_dead else "queued",
                delay=decision.delay,
                error=self._entry(delivery, setback) if _is_news(decision, standing) else None,
            )
            if not noted:
                await session.rollback()
                return await lost(session, delivery, job)
            window.open()
            await session.commit()
        if to_send:
            self._send(to_send)
        return decision

    def _entry(self, delivery: "Delivery", setback: Setback) -> dict[str, object]:
        return setback.failure.as_json(delivery.try_number, datetime.now(UTC))

    def _emit(self, delivery: "Delivery", setback: Setback, decision: Decision) -> None:
        match decision.action:
            case "put_back":
                emit_retry(self._events, "job.put_back", delivery, setback.diagnosis)
            case "spend_attempt":
                emit_retry(self._events, "job.failed", delivery, setback.diagnosis)
            case "blocked":
                self._emit_blocked(delivery, setback, str(decision.standing.blocked_by))

    def _emit_blocked(self, delivery: "Delivery", setback: Setback, blocked_by: str) -> None:
        if setback.cause is Cause.NEWER_WORKER:
            error = setback.failure.error
            emit_blocked(self._events, "job.waits_for_worker", delivery, error=error)
            return
        emit_blocked(self._events, "job.blocked", delivery, blocked_by=blocked_by)
        if self._blocked.get(delivery.job.kind) != blocked_by:
            self._blocked[delivery.job.kind] = blocked_by
            self._events.emit("kind.blocked", kind=delivery.job.kind, blocked_by=blocked_by)


def _is_news(decision: Decision, before: Standing) -> bool:
    """Return whether the row gets an entry: not for each round of a wait."""
    match decision.action:
        case "put_back":
            return False
        case "blocked":
            return decision.standing.blocked_by != before.blocked_by
        case _:
            return True
