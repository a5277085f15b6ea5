"""The jobs as plain arq functions: what arq's loop, or ours, calls.

The executor is in arq's ctx, since only a started worker has one. Outcomes become what arq
understands: a return value, a `Retry` with a delay, or an error that is final.
"""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from arq import Retry
from arq.worker import Function, func

from worker.errors import JobCancelledError, JobConflictError, JobDeadError
from worker.execution import failures
from worker.execution import serializer as wire
from worker.execution.delivery import read_delivery
from worker.execution.outcome import Conflict, Finished, Later, Outcome
from worker.execution.serving import EXECUTOR, aborted_in_record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs import Job
    from worker.execution.executor import Executor

# Attempts are counted in the record; arq's own count of deliveries must never end a job.
DELIVERIES_MAX: Final = 1_000_000

# Above the longest policy: the executor's own deadline strikes first, and records what it did.
QUEUE_TIMEOUT_MARGIN: Final = timedelta(seconds=60)


def arq_functions(jobs: "Mapping[str, Job]") -> list[Function]:
    """Return an arq function for every kind, and the two that keep what no kind can run."""
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
            await aborted_in_record(ctx)
            raise
        return _answer(outcome)

    timeout = job.policy.timeout + QUEUE_TIMEOUT_MARGIN
    return func(run, name=job.kind, timeout=timeout, max_tries=DELIVERIES_MAX)


def _from_record(jobs: "Mapping[str, Job]") -> Function:
    """Return the function that runs a job whose kind and payload are in the record alone."""

    async def run(ctx: dict[Any, Any], kind: str) -> Any:  # noqa: ANN401 - arq's shape
        executor: Executor = ctx[EXECUTOR]
        delivery = replace(read_delivery(kind, ctx, [], {}), exclusive=True)
        job = jobs.get(kind)
        if job is None:
            return _answer(await executor.wait_for_worker(delivery))
        return _answer(await executor.run(job, delivery))

    timeout = max(job.policy.timeout for job in jobs.values()) + QUEUE_TIMEOUT_MARGIN
    return func(run, name=wire.FROM_RECORD, timeout=timeout, max_tries=DELIVERIES_MAX)


async def _malformed(ctx: dict[Any, Any], body: object) -> Any:  # noqa: ANN401 - arq's shape
    """Keep a body that is not a job in JSON as a dead job, with what it was."""
    executor: Executor = ctx[EXECUTOR]
    delivery = read_delivery("malformed", ctx, [body], {})
    return _answer(await executor.mark_dead(delivery, failures.not_a_job()))


async def _unknown_kind(ctx: dict[Any, Any], kind: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
    """Keep a job of a kind that another version of the worker may know."""
    executor: Executor = ctx[EXECUTOR]
    return _answer(await executor.wait_for_worker(read_delivery(kind, ctx, args, kwargs)))


def _answer(outcome: Outcome) -> Any:  # noqa: ANN401 - the job's own result
    """Turn an outcome into what arq understands.

    Raises:
        Retry: the job goes back to the queue.
        JobDeadError, JobCancelledError, JobConflictError: final, and not a success.
    """
    match outcome:
        case Finished("completed", result):
            return result
        case Finished("rejected", result):
            return {"rejected": result}
        case Finished("cancelled", result):
            raise JobCancelledError(str((result or {}).get("reason", "cancelled")))
        case Finished("dead", _):
            raise JobDeadError("the job is dead: `python -m worker jobs show ID` has its errors")
        case Conflict():
            raise JobConflictError("this id belongs to a job with another payload")
        case Later(delay):
            raise Retry(defer=delay)
    raise AssertionError(f"an outcome that arq cannot be told: {outcome}")
