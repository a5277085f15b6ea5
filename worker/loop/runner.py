"""Running one job: open, perform, end. One task per job, from claim to record."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from arq.constants import job_key_prefix, retry_key_prefix
from arq.utils import ms_to_datetime, timestamp_ms
from arq.worker import Retry, RetryJob

from . import decode, log_lines
from .completions import FinishedRun, completion_of
from .connection import LOSS_ERRORS
from .containment import IN_JOB
from .decode import ReadyJob, Refusal, decode_claim
from .ends import ending, forget_cancel, is_closed
from .outcomes import Aborted, Completed, HandBack, RunOutcome, is_final, outcome_of
from .scripts import OPEN
from .slots import Slot

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import arq.worker

    from .claims import Claim, Claims
    from .connection import Connection
    from .ends import Ends
    from .queues import Queues
    from .refusals import Refusals
    from .slots import Slots
    from .suspects import Suspects

logger = logging.getLogger("arq.worker")

RETRY_TTL_S: Final = 88_400
"""arq's own lifetime of a try counter."""
HOOK_RETRY_S: Final = 1.0
"""How long a job waits whose `on_job_start` failed."""
ALONE_DELAY_MS: Final = 5_000
"""How long a job waits that could not run alone here; another process may be idle."""


class Runner:
    """Runs the jobs that the worker holds.

    Hooks, limits and counters are arq's, so they stay on the worker and are read when needed.
    """

    def __init__(  # noqa: PLR0913 - the parts of the loop that it joins
        self,
        worker: "arq.worker.Worker",
        connection: "Connection",
        claims: "Claims",
        queues: "Queues",
        *,
        suspects: "Suspects",
        ends: "Ends",
        refusals: "Refusals",
    ) -> None:
        self._worker = worker
        self._connection = connection
        self._claims = claims
        self._queues = queues
        self._suspects = suspects
        self._ends = ends
        self._refusals = refusals
        self.shutting_down = False
        """Whether jobs that are cancelled from now on are handed back and not retried."""
        self.is_final: Callable[[BaseException], bool] = is_final
        """Whether an error that a job's function raised ends the job; by default every one does.

        After one that does not, the job is queued again, with a delay that grows with its tries.
        `Retry`, `RetryJob` and cancellations keep arq's meaning, and are not asked about.
        """
        self._large_bodies = asyncio.Lock()

    async def run(self, claim: "Claim") -> None:
        """Run one held job; the body of its task."""
        claim.started = True
        slots = self._queues[claim.queue_name]
        try:
            if slots.closed.is_set():
                self._ends.give_back(claim, claim.score)
                return
            if claim.body_size:
                await self._fetch_body(claim)
            job = self.open(claim)
            if isinstance(job, Refusal):
                await self._refusals.refuse(claim, job)
            elif not claim.crashes or await self._open_suspect(claim, slots):
                if job.job_try > claim.tries:
                    await self._raise_tries(claim, job.job_try)
                await self._carry_out(claim, job, slots)
        except LOSS_ERRORS as error:
            logger.warning("job %s: put aside, redis is away: %s", claim.job_id, error)
            self._ends.give_back(claim, claim.score)
        except asyncio.CancelledError:
            # The worker stops, and the job has not begun.
            self._ends.give_back(claim, claim.score)
        except BaseException as error:
            if is_closed(error):
                raise
            # A bug of the loop, not of the job. The lease is no longer renewed, so the job comes
            # back.
            logger.exception(
                "job %s: the loop failed, the job will be delivered again", claim.job_id
            )
        finally:
            slots.release(claim)

    async def run_local(self, claim: "Claim", job: ReadyJob) -> RunOutcome:
        """Run a job from another source than Redis; the body of its task."""
        IN_JOB.set(True)
        claim.started = True
        slots = self._queues[claim.queue_name]
        try:
            if slots.closed.is_set():
                return HandBack()
            if claim.crashes and not await self._is_alone(claim, slots):
                return HandBack()
            return await self._carry_out(claim, job, slots)
        finally:
            slots.release(claim)

    async def _carry_out(self, claim: "Claim", job: ReadyJob, slots: "Slots") -> RunOutcome:
        worker = self._worker
        ctx = {
            **worker.ctx,
            "job_id": job.job_id,
            "job_try": job.job_try,
            "enqueue_time": ms_to_datetime(job.enqueue_ms),
            "score": job.score,
            "crashes": claim.crashes,
            "queue": claim.queue_name,
            "slot": Slot(slots, claim),
        }
        run = await self.perform(job, ctx)
        if isinstance(run.outcome, Aborted):
            run.outcome = await self._ends.confirm(ending(claim, decode.ABORTED, run.outcome, job))
        self._ends.count(claim, run.outcome)
        run_ms = run.finish_ms - run.start_ms
        log_lines.job_ends(job, run.outcome, run_ms, log_result=worker.log_results)
        completion = completion_of(worker, claim, job, run)
        await _call_hook(worker.on_job_end, ctx)
        if claim.in_redis:
            await self._ends.record(claim, completion)
        await _call_hook(worker.after_job_end, ctx)
        return run.outcome

    # Open

    async def _is_alone(self, claim: "Claim", slots: "Slots") -> bool:
        return await self._suspects.wait_alone(claim, lambda: slots.accepting)

    async def _open_suspect(self, claim: "Claim", slots: "Slots") -> bool:
        """Wait until a job under which processes died may run alone, and count its claim."""
        if not await self._is_alone(claim, slots):
            stops = not slots.accepting
            self._ends.give_back(claim, claim.score if stops else timestamp_ms() + ALONE_DELAY_MS)
            return False
        claims = self._claims
        args = (claims.worker_id, claim.job_id, claim.tries, claims.lease_ms_of(claim))
        opening = OPEN(self._worker.pool, (claim.queue_name,), args)
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
            if is_closed(error):
                raise
            outcome = outcome_of(
                error,
                retry_jobs=worker.retry_jobs,
                aborting=job.job_id in worker.aborting_tasks,
                shutting_down=self.shutting_down,
                is_final=self._is_final,
                job_try=job.job_try,
            )
            forget_cancel(task)
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
            if is_closed(error) or not self._worker.retry_jobs:
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


async def _call_hook(
    hook: "Callable[[dict[Any, Any]], Awaitable[Any]] | None", ctx: dict[Any, Any]
) -> None:
    """Call a hook after the run; the outcome stands, even if the hook fails."""
    if hook is None:
        return
    try:
        await hook(ctx)
    except BaseException as error:
        if is_closed(error):
            raise
        logger.exception("%s failed after job %s", log_lines.name_of(hook), ctx["job_id"])
