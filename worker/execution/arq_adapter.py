"""Where arq and the executor meet: how arq calls a job, and what goes back.

The jobs are plain arq functions, for arq's stock loop and for ours. The executor is in arq's ctx,
since only a started worker has one. Outcomes become what arq understands: a return value, a
`Retry` with a delay, or an error that is final.
"""

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from arq import Retry
from arq.worker import Function, func

from jobs._wire import completed_answer, rejected_answer
from worker.errors import JobCancelledError, JobConflictError, JobDeadError
from worker.execution import failures
from worker.execution import serializer as wire
from worker.execution.delivery import read_delivery
from worker.execution.outcome import Conflict, Finished, Later, Outcome
from worker.loop import Worker
from worker.loop.decode import ABORTED
from worker.loop.outcomes import Failed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs import Job
    from worker.execution.executor import Executor
    from worker.loop.outcomes import Ending, RunOutcome

WORKER: Final = "teller_worker"
"""The worker's place in its own ctx; absent where arq's stock loop runs our functions."""

EXECUTOR: Final = "teller_executor"
"""The executor's place in arq's ctx."""

# Attempts are counted in the job's row; arq's own count of deliveries must never end a job.
DELIVERIES_MAX: Final = 1_000_000

# Above the longest policy: the executor's own deadline comes first, and is recorded.
QUEUE_TIMEOUT_MARGIN: Final = timedelta(seconds=60)


class TellerWorker(Worker):
    """The worker of `python -m worker run`: our loop, with client aborts written to PostgreSQL."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - arq's thirty options
        super().__init__(*args, **kwargs)
        self.ctx[WORKER] = self
        self.runner.confirm_end = self._confirm_end

    def is_aborting(self, redis_id: str) -> bool:
        """Return whether a client has asked for this job's end."""
        return redis_id in self.aborting_tasks

    async def _confirm_end(self, ending: "Ending") -> "RunOutcome":
        """When a client aborts a job that waits, cancel it in PostgreSQL before Redis ends it.

        Otherwise the relay would send the job again once Redis has forgotten it.
        """
        executor: Executor | None = self.ctx.get(EXECUTOR)
        if ending.reason == ABORTED and executor is not None:
            await executor.abort(ending.job_id)
            return Failed(JobCancelledError("aborted by a client"))
        return ending.outcome


def arq_functions(jobs: "Mapping[str, Job]") -> list[Function]:
    """Return one function per kind, and three of ours.

    Those are for bodies that are no job, kinds that this worker does not know, and jobs that were
    claimed from PostgreSQL.
    """
    return [
        *(_function_of(job) for job in jobs.values()),
        func(_malformed, name=wire.MALFORMED, max_tries=DELIVERIES_MAX),
        func(_unknown_kind, name=wire.UNKNOWN_KIND, max_tries=DELIVERIES_MAX),
        _from_record(jobs),
    ]


def _function_of(job: "Job") -> Function:
    async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - arq's shape
        executor: Executor = ctx[EXECUTOR]
        try:
            outcome = await executor.run(job, read_delivery(job.kind, ctx, args, kwargs))
        except asyncio.CancelledError:
            await _record_abort(ctx)
            raise
        return _to_arq(outcome)

    timeout = job.policy.timeout + QUEUE_TIMEOUT_MARGIN
    return func(run, name=job.kind, timeout=timeout, max_tries=DELIVERIES_MAX)


async def _record_abort(ctx: dict[Any, Any]) -> None:
    """After a cancellation that a client asked for, cancel the job in PostgreSQL too.

    Must be awaited from the cancelled task itself, before it lets the cancellation go on.
    """
    worker: TellerWorker | None = ctx.get(WORKER)
    if worker is not None and worker.is_aborting(ctx["job_id"]):
        await asyncio.shield(ctx[EXECUTOR].abort(ctx["job_id"]))


def _from_record(jobs: "Mapping[str, Job]") -> Function:
    """Return the function that runs a job whose kind and payload are in PostgreSQL alone."""

    async def run(ctx: dict[Any, Any], kind: str) -> Any:  # noqa: ANN401 - arq's shape
        executor: Executor = ctx[EXECUTOR]
        delivery = read_delivery(kind, ctx, [], {})
        job = jobs.get(kind)
        if job is None:
            return _to_arq(await executor.wait_for_worker(delivery))
        return _to_arq(await executor.run(job, delivery))

    timeout = max(job.policy.timeout for job in jobs.values()) + QUEUE_TIMEOUT_MARGIN
    return func(run, name=wire.FROM_RECORD, timeout=timeout, max_tries=DELIVERIES_MAX)


async def _malformed(ctx: dict[Any, Any], body: object) -> Any:  # noqa: ANN401 - arq's shape
    """Keep a body that is not a job in JSON as a dead job, with what it was."""
    executor: Executor = ctx[EXECUTOR]
    delivery = read_delivery("malformed", ctx, [body], {})
    return _to_arq(await executor.mark_dead(delivery, failures.not_a_job()))


async def _unknown_kind(ctx: dict[Any, Any], kind: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Keep a job whose kind another version of the worker may know."""
    executor: Executor = ctx[EXECUTOR]
    return _to_arq(await executor.wait_for_worker(read_delivery(kind, ctx, args, kwargs)))


def _to_arq(outcome: Outcome) -> Any:  # noqa: ANN401 - the job's own result
    """Turn an outcome into what arq understands.

    Raises:
        Retry: the job goes back to the queue.
        JobDeadError, JobCancelledError, JobConflictError: final, and not a success.
    """
    match outcome:
        case Finished("completed", result):
            return completed_answer(result)
        case Finished("rejected", result):
            return rejected_answer(result)
        case Finished("cancelled", result):
            raise JobCancelledError(str((result or {}).get("reason", "cancelled")))
        case Finished("dead", _):
            raise JobDeadError("the job is dead: `python -m worker jobs show ID` has its errors")
        case Conflict():
            raise JobConflictError("this id belongs to a job with another payload")
        case Later(delay):
            raise Retry(defer=delay)
    raise AssertionError(f"an outcome without an answer for arq: {outcome}")
