"""Running one job: open, perform, record. One task per job, from claim to record."""

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import arq.worker as arq_worker
from arq.constants import job_key_prefix, retry_key_prefix
from arq.utils import ms_to_datetime, timestamp_ms, to_ms
from arq.worker import Retry, RetryJob

from . import decode, log_lines, unknown
from .completer import Completion
from .connection import LOSS_ERRORS
from .containment import IN_JOB
from .decode import ReadyJob, Refusal, decode_claim
from .outcomes import (
    Aborted,
    Completed,
    Ending,
    Failed,
    HandBack,
    RetryLater,
    RunOutcome,
    is_final,
    outcome_of,
)
from .results import passed_over, refusal_result, run_result
from .scripts import OPEN, PUT_BACK
from .slots import Slot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from arq.jobs import JobResult

    from .claims import Claim, Claims
    from .completer import Completer
    from .connection import Connection
    from .slots import Slots

logger = logging.getLogger("arq.worker")

RETRY_TTL_S: Final = 88_400
"""arq's own lifetime of a try counter."""
HOOK_RETRY_S: Final = 1.0
"""How long a job waits whose `on_job_start` failed."""
ALONE_DELAY_MS: Final = 5_000
"""How long a job waits that could not run alone here; another process may be idle."""
UNCONFIRMED_DELAY_MS: Final = 2_000
"""How long a job waits whose end `confirm_end` failed to confirm."""
UNKNOWN_AGE_MAX_MS: Final = 24 * 3_600_000
"""How long a job waits for a worker that knows its function before it ends as failed."""
UNKNOWN_DELAY_GROWTH: Final = 0.1
"""Each wait is this part of the time the job has waited already; `unknown.py` has its bounds."""


@dataclass(slots=True, eq=False)
class FinishedRun:
    """One run that is over: its outcome, and its times."""

    outcome: RunOutcome
    start_ms: int
    finish_ms: int

    @property
    def times_ms(self) -> tuple[int, int]:
        """When the run started and finished."""
        return self.start_ms, self.finish_ms


class Runner:
    """Runs the jobs that the worker holds.

    Hooks, limits and counters are arq's, so they stay on the worker and are read when needed.
    """

    def __init__(
        self,
        worker: "arq_worker.Worker",
        connection: "Connection",
        claims: "Claims",
        slots: "Slots",
        completer: "Completer",
    ) -> None:
        self._worker = worker
        self._connection = connection
        self._claims = claims
        self._slots = slots
        self._completer = completer
        self.shutting_down = False
        """Whether jobs that are cancelled from now on are handed back and not retried."""
        self.is_final: Callable[[BaseException], bool] = is_final
        """Whether an error that a job's function raised ends the job; by default every one does.

        After one that does not, the job is queued again, with a delay that grows with its tries.
        `Retry`, `RetryJob` and cancellations keep arq's meaning, and are not asked about.
        """
        self.confirm_end: Callable[[Ending], Awaitable[RunOutcome]] | None = None
        """Awaited before an end that the job's function did not choose: a refusal or an abort.

        Nothing about the job is deleted from Redis before the answer, which is how the job ends:

        - `ending.outcome`: as announced; whoever it concerns has recorded it.
        - another `Completed` or `Failed`: the job had ended otherwise, and its caller is told that.
        - `RetryLater(defer_ms)`: it cannot be recorded now. The job is queued again, its abort is
          kept, and the question comes again with the next delivery.

        If it raises, the job is queued again too.
        """
        self._large_bodies = asyncio.Lock()
        self._unknown = unknown.UnknownFunctions()
        self.passed_over: dict[str, JobResult] = {}
        """What a burst run reports of jobs that it left in the queue, by id."""

    async def run(self, claim: "Claim") -> None:
        """Run one held job; the body of its task."""
        claim.started = True
        try:
            if self._slots.closed.is_set():
                self.give_back(claim, claim.score)
                return
            if claim.body_size:
                await self._fetch_body(claim)
            job = self.open(claim)
            if isinstance(job, Refusal):
                await self._refuse(claim, job)
            elif not claim.crashes or await self._open_suspect(claim):
                if job.job_try > claim.tries:
                    await self._raise_tries(claim, job.job_try)
                await self._carry_out(claim, job)
        except LOSS_ERRORS as error:
            logger.warning("job %s: put aside, redis is away: %s", claim.job_id, error)
            self.give_back(claim, claim.score)
        except asyncio.CancelledError:
            # The worker stops, and the job has not begun.
            self.give_back(claim, claim.score)
        except BaseException as error:
            if _is_closed(error):
                raise
            # A bug of the loop, not of the job. The lease is no longer renewed, so the job comes
            # back.
            logger.exception(
                "job %s: the loop failed, the job will be delivered again", claim.job_id
            )
        finally:
            self._slots.release(claim)

    async def run_local(self, claim: "Claim", job: ReadyJob) -> RunOutcome:
        """Run a job from another source than Redis; the body of its task."""
        IN_JOB.set(True)
        claim.started = True
        try:
            if self._slots.closed.is_set():
                return HandBack()
            if claim.crashes and not await self._slots.wait_alone(claim):
                return HandBack()
            return await self._carry_out(claim, job)
        finally:
            self._slots.release(claim)

    async def _carry_out(self, claim: "Claim", job: ReadyJob) -> RunOutcome:
        worker = self._worker
        ctx = {
            **worker.ctx,
            "job_id": job.job_id,
            "job_try": job.job_try,
            "enqueue_time": ms_to_datetime(job.enqueue_ms),
            "score": job.score,
            "crashes": claim.crashes,
            "slot": Slot(self._slots, claim),
        }
        run = await self.perform(job, ctx)
        if isinstance(run.outcome, Aborted):
            run.outcome = await self._confirm(_ending(claim, decode.ABORTED, run.outcome, job))
        self._count(claim, run.outcome)
        run_ms = run.finish_ms - run.start_ms
        log_lines.job_ends(job, run.outcome, run_ms, log_result=worker.log_results)
        completion = _completion_of(worker, claim, job, run)
        await _call_hook(worker.on_job_end, ctx)
        if claim.in_redis:
            await self.record(claim, completion)
        await _call_hook(worker.after_job_end, ctx)
        return run.outcome

    # Open

    async def _open_suspect(self, claim: "Claim") -> bool:
        """Wait until a job under which processes died may run alone, and count its claim."""
        if not await self._slots.wait_alone(claim):
            stops = not self._slots.accepting
            self.give_back(claim, claim.score if stops else timestamp_ms() + ALONE_DELAY_MS)
            return False
        opening = OPEN(self._worker.pool, (), (self._claims.worker_id, claim.job_id, claim.tries))
        claim.opened = bool(await self._connection.call(opening))
        if claim.opened:
            log_lines.suspect_starts(claim.job_id, claim.crashes)
        return claim.opened

    async def _fetch_body(self, claim: "Claim") -> None:
        """Fetch a body that was too large to come with the claim; one at a time, on a slow line."""
        async with self._large_bodies:
            get = self._worker.pool.get(job_key_prefix + claim.job_id)
            claim.body = await self._connection.attempt(get, size=claim.body_size)
            claim.body_size = 0

    def open(self, claim: "Claim") -> ReadyJob | Refusal:
        """Decode a claim."""
        worker = self._worker
        return decode_claim(claim, worker.functions, worker.job_deserializer, worker.max_tries)

    async def _raise_tries(self, claim: "Claim", job_try: int) -> None:
        """Let Redis count from the try that the client named (`_job_try`)."""
        key = retry_key_prefix + claim.job_id
        await self._connection.call(self._worker.pool.setex(key, RETRY_TTL_S, str(job_try)))
        claim.tries = job_try

    # Perform

    async def perform(self, job: ReadyJob, ctx: dict[Any, Any]) -> FinishedRun:
        """Call the job's function, and turn its answer or its error into an outcome."""
        worker = self._worker
        task = worker.tasks[job.job_id]
        start_ms = timestamp_ms()
        try:
            if worker.on_job_start:
                await self._begin(job, ctx)
                start_ms = timestamp_ms()
            log_lines.job_starts(job, start_ms)
            worker.job_tasks[job.job_id] = task
            own_timeout_s = job.function.timeout_s
            async with asyncio.timeout(
                worker.job_timeout_s if own_timeout_s is None else own_timeout_s
            ):
                outcome: RunOutcome = Completed(
                    await job.function.coroutine(ctx, *job.args, **job.kwargs)
                )
        except BaseException as error:
            if _is_closed(error):
                raise
            outcome = outcome_of(
                error,
                retry_jobs=worker.retry_jobs,
                aborting=job.job_id in worker.aborting_tasks,
                shutting_down=self.shutting_down,
                is_final=self._is_final,
                job_try=job.job_try,
            )
            _forget_cancel(task)
        finally:
            worker.job_tasks.pop(job.job_id, None)
            worker.aborting_tasks.discard(job.job_id)
        return FinishedRun(outcome, start_ms, timestamp_ms())

    async def _begin(self, job: ReadyJob, ctx: dict[Any, Any]) -> None:
        """Call `on_job_start`; if it fails, the job must not run, and nothing has happened yet."""
        try:
            await self._worker.on_job_start(ctx)  # type: ignore[misc]
        except (Retry, RetryJob, asyncio.CancelledError):
            raise
        except BaseException as error:
            if _is_closed(error) or not self._worker.retry_jobs:
                raise
            logger.exception("on_job_start failed, job %s has not run", job.ref)
            raise Retry(HOOK_RETRY_S) from None

    def _is_final(self, error: BaseException) -> bool:
        """Return whether an error ends its job; not where nobody can say."""
        try:
            return self.is_final(error)
        except BaseException:
            logger.exception("is_final failed, the job will be delivered again")
            return False

    def _count(self, claim: "Claim", outcome: RunOutcome) -> None:
        claim.counted = True
        match outcome:
            case Completed():
                self._worker.jobs_complete += 1
            case Failed() | Aborted():
                self._worker.jobs_failed += 1
            case _:
                self._worker.jobs_retried += 1

    # Record

    async def record(self, claim: "Claim", completion: Completion) -> None:
        """Send a completion, and wait until Redis has stored it."""
        claim.ended = claim.recording = True
        recorded = self._completer.add(completion)
        if self._worker.after_job_end is None:
            # The slot is free: the next claim may travel together with this record.
            self._slots.free(claim)
        try:
            await recorded
        except asyncio.CancelledError:
            # The completion is sent all the same; `Worker.close` waits for the completer.
            logger.debug("job %s: cancelled while its end was being recorded", claim.job_id)
        claim.recording = False

    def give_back(self, claim: "Claim", due_ms: int) -> None:
        """Release a job that was not started, to be claimed again from `due_ms` on."""
        kept = claim.crashes and not claim.opened
        kind: Literal["back", "unrun"] = "unrun" if kept else "back"
        self._completer.add(Completion(claim.job_id, claim.tries, kind, due_ms))

    # Jobs that are not run

    async def _refuse(self, claim: "Claim", refusal: Refusal) -> None:
        if refusal.reason == decode.UNKNOWN_FUNCTION and await self._put_back(claim, refusal):
            return
        aborted = refusal.reason == decode.ABORTED
        announced = Aborted(refusal.error) if aborted else Failed(refusal.error)
        outcome = await self._confirm(_ending(claim, refusal.reason, announced, refusal))
        self._count(claim, outcome)
        match outcome:
            case Completed(result):
                value = refusal_result(self._worker, claim, refusal, result, success=True)
            case Failed(error) | Aborted(error):
                log_lines.job_refused(claim.job_id, refusal)
                value = refusal_result(self._worker, claim, refusal, error, success=False)
            case _:
                await self.record(claim, _completion_again(claim, outcome))
                return
        await self.record(claim, Completion(claim.job_id, claim.tries, "done", *value))

    async def _confirm(self, ending: Ending) -> RunOutcome:
        """Return how a job really ends whose function did not choose the end."""
        if self.confirm_end is None:
            return ending.outcome
        try:
            return await self.confirm_end(ending)
        except asyncio.CancelledError:
            _forget_cancel(asyncio.current_task())
            return HandBack()
        except BaseException as error:
            if _is_closed(error):
                raise
            logger.exception(
                "job %s: its end is not confirmed (%s), it will be delivered again",
                ending.job_id,
                ending.reason,
            )
            return RetryLater(UNCONFIRMED_DELAY_MS)

    async def _put_back(self, claim: "Claim", refusal: Refusal) -> bool:
        """Leave a job to a worker that knows its function; False when it has waited too long."""
        delay_min_ms, say = self._unknown.note(refusal.name, asyncio.get_running_loop().time())
        args = (
            *(self._claims.worker_id, claim.job_id, claim.tries),
            *(UNKNOWN_AGE_MAX_MS, delay_min_ms, unknown.DELAY_MAX_MS),
            *(UNKNOWN_DELAY_GROWTH, int(claim.crashes > 0)),
        )
        put_back = PUT_BACK(self._worker.pool, (self._claims.queue_name,), args)
        delay_ms = await self._connection.call(put_back)
        if delay_ms < 0:
            return False
        log_lines.job_put_back(claim.job_id, refusal.name, delay_ms / 1000, say=say)
        claim.counted = True
        if self._worker.burst and claim.job_id not in self.passed_over:
            self._worker.jobs_failed += 1
            self.passed_over[claim.job_id] = passed_over(self._worker, claim, refusal)
        return True


def _forget_cancel(task: "asyncio.Task[Any] | None") -> None:
    """Take back a cancellation: the job's end follows, and must not find its task cancelled."""
    while task is not None and task.cancelling():
        task.uncancel()


async def _call_hook(
    hook: "Callable[[dict[Any, Any]], Awaitable[Any]] | None", ctx: dict[Any, Any]
) -> None:
    """Call a hook after the run; the outcome stands, even if the hook fails."""
    if hook is None:
        return
    try:
        await hook(ctx)
    except BaseException as error:
        if _is_closed(error):
            raise
        logger.exception("%s failed after job %s", log_lines.name_of(hook), ctx["job_id"])


def _is_closed(error: BaseException) -> bool:
    """Return whether an error says that this coroutine is closed, and not what a job raised.

    A coroutine that is closed, because its event loop was, is not run by a task.
    """
    if not issubclass(type(error), GeneratorExit):  # `isinstance` reads an attribute of the error
        return False
    try:
        return asyncio.current_task() is None
    except RuntimeError:
        return True


def _completion_of(
    worker: "arq_worker.Worker", claim: "Claim", job: ReadyJob, run: FinishedRun
) -> Completion:
    """Turn an outcome into what is written to Redis."""
    keep_ms = _cron_keep_ms() if job.is_cron else 0
    match run.outcome:
        case Completed(result):
            value, ttl_ms = run_result(worker, job, result, run.times_ms, success=True)
        case Failed(error) | Aborted(error):
            value, ttl_ms = run_result(worker, job, error, run.times_ms, success=False)
        case _:
            return _completion_again(claim, run.outcome, keep_ms)
    return Completion(job.job_id, claim.tries, "done", value, ttl_ms, keep_ms)


def _completion_again(claim: "Claim", outcome: RunOutcome, keep_ms: int = 0) -> Completion:
    """Turn an outcome that does not end the job into what is written to Redis."""
    match outcome:
        case RetryLater(defer_ms) if defer_ms:
            due_ms = timestamp_ms() + defer_ms
            return Completion(claim.job_id, claim.tries, "again", due_ms, keep_ms=keep_ms)
        case HandBack():
            return Completion(claim.job_id, claim.tries, "back", claim.score, keep_ms=keep_ms)
        case _:
            return Completion(claim.job_id, claim.tries, "again", claim.score, keep_ms=keep_ms)


def _ending(claim: "Claim", reason: str, outcome: RunOutcome, job: ReadyJob | Refusal) -> Ending:
    return Ending(
        job_id=claim.job_id,
        reason=reason,
        outcome=outcome,
        function=job.name,
        args=job.args,
        kwargs=job.kwargs,
        body=claim.body,
        tries=claim.tries,
        crashes=claim.crashes,
        enqueue_ms=claim.enqueue_ms,
    )


def _cron_keep_ms() -> int:
    # Read where arq's worker reads it, so that a program that changes it there changes it here.
    return to_ms(arq_worker.keep_cronjob_progress)  # type: ignore[attr-defined]
