"""Running one job: open, perform, record. One task per job, from claim to record."""

import asyncio
import logging
import os
import socket
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import uuid4

import arq.worker as arq_worker
from arq.constants import retry_key_prefix
from arq.utils import ms_to_datetime, timestamp_ms, to_ms
from arq.worker import FailedJobs, Retry, RetryJob

from . import decode, log_lines
from .claims import Claim, Claims
from .completer import BATCH_FRACTION, Completer, Completion
from .connection import LOSS_ERRORS, Connection
from .decode import ReadyJob, Refusal, decode_claim
from .outcomes import Aborted, Completed, Failed, HandBack, RetryLater, RunOutcome, outcome_of
from .results import passed_over, refusal_result, run_result
from .scripts import PUT_BACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from arq.jobs import JobResult

    from .scripts import Script

logger = logging.getLogger("arq.worker")

RETRY_TTL_S: Final = 88_400
"""arq's own lifetime of a try counter."""
HOOK_RETRY_S: Final = 1.0
"""How long a job waits whose `on_job_start` failed."""
UNKNOWN_AGE_MAX_MS: Final = 24 * 3_600_000
"""How long a job waits for a worker that knows its function before it ends as failed."""
UNKNOWN_DELAY_MIN_MS: Final = 1_000
UNKNOWN_DELAY_MAX_MS: Final = 60_000
UNKNOWN_DELAY_GROWTH: Final = 0.1
"""Each wait is this part of the time the job has waited already."""


@dataclass(slots=True, eq=False)
class FinishedRun:
    """One finished run: what came of it, and when."""

    outcome: RunOutcome
    start_ms: int
    finish_ms: int

    @property
    def times_ms(self) -> tuple[int, int]:
        """When the run started and finished."""
        return self.start_ms, self.finish_ms


class JobRunner(arq_worker.Worker, ABC):
    """The part of the worker that runs a job it holds."""

    lease_s: ClassVar[float] = 8.0
    """How long a claim holds unrenewed; after it, a killed worker's jobs run elsewhere."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - arq's thirty options
        super().__init__(*args, **kwargs)
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        """What an in-progress key holds while this worker runs the job."""
        self.connection = Connection()
        self._claims = Claims(self.worker_id, self.queue_name, self.lease_s)
        self._held = self._claims.held
        # Whether the last claim left due jobs behind.
        self._backlog = False
        self._quorum = max(1, int(self.max_jobs * BATCH_FRACTION))
        self._completer = Completer(
            self._claims, self._script, self._recorded, self._enough_to_record
        )
        self._passed_over: dict[str, JobResult] = {}
        self._shutting_down = False

    async def _script(self, script: "Script", keys: "Sequence[str]", args: "Sequence[Any]") -> Any:  # noqa: ANN401 - a script answers what it likes
        return await self.connection.call(script(self.pool, keys, args))

    # One job, from claim to record

    async def run_job(self, job_id: str, score: int) -> None:  # noqa: ARG002 - arq's signature
        """Run one held job; the body of its task."""
        claim = self._held[job_id]
        try:
            await self._run(claim)
        except LOSS_ERRORS as error:
            logger.warning("job %s: put aside, redis is away: %s", job_id, error)
        except Exception:
            # A bug of the loop, not of the job. Its lease is no longer renewed, so it comes back.
            logger.exception("job %s: the loop failed, the job will be delivered again", job_id)
        finally:
            self._let_go(claim)

    async def _run(self, claim: Claim) -> None:
        job = decode_claim(claim, self.functions, self.job_deserializer, self.max_tries)
        if isinstance(job, Refusal):
            await self._refuse(claim, job)
            return
        if job.job_try > claim.tries:
            await self._raise_tries(claim, job.job_try)
        await self._carry_out(claim, job)

    async def _carry_out(self, claim: Claim, job: ReadyJob) -> RunOutcome:
        claim.enqueue_ms = job.enqueue_ms
        ctx = self._context(job)
        run = await self._perform(job, ctx)
        self._tell(claim, job, run)
        completion = self._completion_of(claim, job, run)
        await self._call_hook(self.on_job_end, ctx)
        if claim.in_redis:
            await self._record(claim, completion)
        await self._call_hook(self.after_job_end, ctx)
        return run.outcome

    def _context(self, job: ReadyJob) -> dict[Any, Any]:
        return {
            **self.ctx,
            "job_id": job.job_id,
            "job_try": job.job_try,
            "enqueue_time": ms_to_datetime(job.enqueue_ms),
            "score": job.score,
        }

    async def _perform(self, job: ReadyJob, ctx: dict[Any, Any]) -> FinishedRun:
        task = self.tasks[job.job_id]
        start_ms = timestamp_ms()
        try:
            if self.on_job_start:
                await self._begin(job, ctx)
                start_ms = timestamp_ms()
            log_lines.job_starts(job, start_ms)
            self.job_tasks[job.job_id] = task
            async with asyncio.timeout(self._timeout_of(job)):
                outcome: RunOutcome = Completed(
                    await job.function.coroutine(ctx, *job.args, **job.kwargs)
                )
        except (Exception, asyncio.CancelledError, SystemExit) as error:  # noqa: BLE001 - outcome_of
            outcome = outcome_of(
                error,
                retry_jobs=self.retry_jobs,
                aborting=job.job_id in self.aborting_tasks,
                shutting_down=self._shutting_down,
            )
            # What follows is the job's end, and must not look cancelled to what it awaits.
            while task.cancelling():
                task.uncancel()
        finally:
            self.job_tasks.pop(job.job_id, None)
            self.aborting_tasks.discard(job.job_id)
        return FinishedRun(outcome, start_ms, timestamp_ms())

    async def _begin(self, job: ReadyJob, ctx: dict[Any, Any]) -> None:
        """Call `on_job_start`; where it fails the job must not run, and nothing has happened."""
        try:
            await self.on_job_start(ctx)  # type: ignore[misc]
        except (Retry, RetryJob):
            raise
        except Exception as error:
            logger.exception("on_job_start failed, job %s has not run", job.ref)
            if not self.retry_jobs:
                raise
            raise Retry(HOOK_RETRY_S) from error

    def _timeout_of(self, job: ReadyJob) -> float | None:
        own = job.function.timeout_s
        return self.job_timeout_s if own is None else own

    async def _call_hook(
        self, hook: "Callable[[dict[Any, Any]], Awaitable[Any]] | None", ctx: dict[Any, Any]
    ) -> None:
        """Call a hook after the run; it can change nothing any more, least of all by failing."""
        if hook is None:
            return
        try:
            await hook(ctx)
        except (Exception, asyncio.CancelledError):
            logger.exception("%s failed after job %s", hook.__qualname__, ctx["job_id"])

    def _tell(self, claim: Claim, job: ReadyJob, run: FinishedRun) -> None:
        """Count the run, and log it."""
        claim.counted = True
        match run.outcome:
            case Completed():
                self.jobs_complete += 1
            case Failed() | Aborted():
                self.jobs_failed += 1
            case _:
                self.jobs_retried += 1
        run_ms = run.finish_ms - run.start_ms
        log_lines.job_ends(job, run.outcome, run_ms, log_result=self.log_results)

    # What is written down

    def _completion_of(self, claim: Claim, job: ReadyJob, run: FinishedRun) -> Completion:
        """Turn an outcome into what Redis is told."""
        keep_ms = _cron_keep_ms() if job.is_cron else 0
        match run.outcome:
            case RetryLater(defer_ms) if defer_ms:
                due_ms = timestamp_ms() + defer_ms
                return Completion(job.job_id, claim.tries, "again", due_ms, keep_ms=keep_ms)
            case HandBack():
                return Completion(job.job_id, claim.tries, "back", claim.score, keep_ms=keep_ms)
            case Completed(result):
                value, ttl_ms = run_result(self, job, result, run.times_ms, success=True)
            case Failed(error) | Aborted(error):
                value, ttl_ms = run_result(self, job, error, run.times_ms, success=False)
            case _:
                return Completion(job.job_id, claim.tries, "again", claim.score, keep_ms=keep_ms)
        return Completion(job.job_id, claim.tries, "done", value, ttl_ms, keep_ms)

    async def _record(self, claim: Claim, completion: Completion) -> None:
        """Hand the end to the completer, and wait until Redis has it."""
        claim.ended = claim.recording = True
        recorded = self._completer.add(completion)
        if self.after_job_end is None:
            # The slot is free: the next claim may travel together with this record.
            self._free_slot(claim)
        try:
            await recorded
        except asyncio.CancelledError:
            # The record is on its way whoever waits for it; `close` waits for the completer.
            logger.debug("job %s: cancelled while its end was being recorded", claim.job_id)
        claim.recording = False

    async def _raise_tries(self, claim: Claim, job_try: int) -> None:
        """Let Redis count from where the client said (`_job_try`)."""
        key = retry_key_prefix + claim.job_id
        await self.connection.call(self.pool.setex(key, RETRY_TTL_S, str(job_try)))
        claim.tries = job_try

    def _enough_to_record(self, ends: int) -> bool:
        return not self._backlog or ends >= self._quorum

    # What is not run

    async def _refuse(self, claim: Claim, refusal: Refusal) -> None:
        if refusal.reason == decode.UNKNOWN_FUNCTION and await self._put_back(claim, refusal):
            return
        log_lines.job_refused(claim.job_id, refusal)
        claim.counted = True
        self.jobs_failed += 1
        value, ttl_ms = refusal_result(self, claim, refusal)
        await self._record(claim, Completion(claim.job_id, claim.tries, "done", value, ttl_ms))

    async def _put_back(self, claim: Claim, refusal: Refusal) -> bool:
        """Leave a job to a worker that knows its function; False when it has waited too long."""
        args = (
            *(self.worker_id, claim.job_id, claim.tries),
            *(UNKNOWN_AGE_MAX_MS, UNKNOWN_DELAY_MIN_MS, UNKNOWN_DELAY_MAX_MS),
            UNKNOWN_DELAY_GROWTH,
        )
        delay_ms = await self._script(PUT_BACK, (self.queue_name,), args)
        if delay_ms < 0:
            return False
        log_lines.job_put_back(claim.job_id, refusal.name, delay_ms / 1000)
        claim.counted = True
        if self.burst and claim.job_id not in self._passed_over:
            self.jobs_failed += 1
            self._passed_over[claim.job_id] = passed_over(self, claim, refusal)
        return True

    async def run_check(
        self,
        retry_jobs: bool | None = None,  # noqa: FBT001 - arq's signature
        max_burst_jobs: int | None = None,
    ) -> int:
        """Run until the queue is empty and return how many jobs completed.

        Raises:
            arq.worker.FailedJobs: some failed, or no function here could run them.
        """
        try:
            return await super().run_check(retry_jobs, max_burst_jobs)
        except FailedJobs as failed:
            failed.job_results += self._passed_over.values()
            raise

    # Slots: what the loop does when one is free again (`slots.py`)

    @abstractmethod
    def _free_slot(self, claim: Claim) -> None:
        """Let the next job in; the end of this one may still be on its way to Redis."""

    @abstractmethod
    def _recorded(self, completions: "list[Completion]") -> None:
        """Redis has these ends."""

    @abstractmethod
    def _let_go(self, claim: Claim) -> None:
        """Forget a job whose task ends."""


def _cron_keep_ms() -> int:
    # Read where arq's worker reads it, so that whoever changes it there changes it here.
    return to_ms(arq_worker.keep_cronjob_progress)  # type: ignore[attr-defined]
