"""Where arq and the executor meet: how arq calls a job, and what goes back.

The jobs are plain arq functions, for arq's stock loop and for ours. The executor is in arq's ctx,
since only a started worker has one. Outcomes become what arq understands: a return value, a
`Retry` with a delay, or an error that is final.
"""

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from arq import Retry
from arq.utils import ms_to_datetime
from arq.worker import Function, func

from jobs._wire import completed_answer, rejected_answer
from worker.errors import JobCancelledError, JobConflictError, JobDeadError
from worker.execution import serializer as wire
from worker.execution.delivery import QUEUE_NAMES, Delivery, identify, read_delivery
from worker.execution.outcome import Conflict, Finished, Later, Outcome
from worker.execution.payloads import MALFORMED_KIND
from worker.loop import Worker
from worker.loop.decode import ABORTED
from worker.loop.outcomes import Completed, Failed, RetryLater

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jobs import Job
    from worker.execution.executor import Executor
    from worker.loop.outcomes import Ending, RunOutcome

STAND_INS: Final = (wire.MALFORMED, wire.UNKNOWN_KIND, wire.FROM_RECORD)
"""The functions that stand in for what is no kind of ours."""

WORKER: Final = "teller_worker"
"""The worker's place in its own ctx; absent where arq's stock loop runs our functions."""

EXECUTOR: Final = "teller_executor"
"""The executor's place in arq's ctx."""

# Attempts are counted in the job's row; arq's own count of deliveries must never end a job.
DELIVERIES_MAX: Final = 1_000_000

# Above the longest policy: the executor's own bounds come first, and what they do is recorded.
QUEUE_TIMEOUT_MARGIN: Final = timedelta(seconds=120)

FINAL_ERRORS: Final = (JobDeadError, JobCancelledError, JobConflictError)
"""The errors that end a job: each is raised only for what the job's row says for good."""

NOT_READY_RETRY: Final = timedelta(seconds=1)


class TellerWorker(Worker):
    """The worker of `python -m worker run`: our loop, where the job's row decides about its end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - arq's thirty options
        super().__init__(*args, **kwargs)
        self.ctx[WORKER] = self
        self.runner.is_final = is_final
        self.ends.confirm_end = self._confirm_end

    async def _confirm_end(self, ending: "Ending") -> "RunOutcome":
        """Return how a job ends that a client aborted, or that the loop would end without a run.

        Whatever the loop found, too many tries or a body that expired, the row may know more.
        """
        executor: Executor | None = self.ctx.get(EXECUTOR)
        if executor is None:
            return _to_loop(Later(NOT_READY_RETRY), ending.job_id)
        delivery = _delivery_of(ending, self.ctx)
        if ending.reason == ABORTED:
            outcome = await executor.cancel(delivery, "aborted by a client")
        else:
            outcome = await executor.run(executor.jobs.get(delivery.job.kind), delivery)
        return _to_loop(outcome, delivery.job.id)


def is_final(error: BaseException) -> bool:
    """Return whether an error of one of our functions ends its job."""
    return issubclass(type(error), FINAL_ERRORS)


def arq_functions(jobs: "Mapping[str, Job]") -> list[Function]:
    """Return one function per kind, and three of ours.

    Those are for bodies that are no job, kinds that this worker does not know, and jobs that were
    claimed from PostgreSQL.
    """
    # One limit for all: a row may turn out to be of another kind than was delivered.
    longest = max(job.policy.timeout for job in jobs.values())
    return [_function(name, jobs, longest) for name in (*jobs, *STAND_INS)]


def _function(name: str, jobs: "Mapping[str, Job]", limit: timedelta) -> Function:
    """Return an arq function: it answers, or raises `Retry` or one of the final errors."""

    async def run(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - arq's shape
        delivery = _read(name, ctx, args, kwargs)
        executor: Executor = ctx[EXECUTOR]
        return _to_arq(await executor.run(jobs.get(delivery.job.kind), delivery), delivery.job.id)

    return func(run, name=name, timeout=limit + QUEUE_TIMEOUT_MARGIN, max_tries=DELIVERIES_MAX)


def _read(
    name: str, ctx: "Mapping[Any, Any]", args: "Sequence[Any]", kwargs: "Mapping[str, Any]"
) -> Delivery:
    """Return what arq delivered to one of our functions; never fails."""
    try:
        return _delivery(name, ctx, args, kwargs)
    except Exception:  # noqa: BLE001 - whatever is odd about it, its row has to say so
        job = identify(MALFORMED_KIND, ctx["job_id"], datetime.now(UTC))
        return Delivery(job, 2, fault="it could not be read")


def _delivery(
    name: str, ctx: "Mapping[Any, Any]", args: "Sequence[Any]", kwargs: "Mapping[str, Any]"
) -> Delivery:
    match name:
        case wire.MALFORMED:
            return read_delivery(MALFORMED_KIND, ctx, args, kwargs)
        case wire.UNKNOWN_KIND:
            return read_delivery(args[0], ctx, args[1:], kwargs)
        case wire.FROM_RECORD:
            return read_delivery(args[0], ctx, (), {})
    return read_delivery(name, ctx, args, kwargs)


def _delivery_of(ending: "Ending", worker_ctx: "Mapping[Any, Any]") -> Delivery:
    """Return the delivery of a job that the loop has not run, or not to its end."""
    ctx = {
        "job_id": ending.job_id,
        "job_try": max(ending.tries, 2),  # whatever it was: the row is looked at first
        "enqueue_time": ms_to_datetime(ending.enqueue_ms)
        if ending.enqueue_ms
        else datetime.now(UTC),
        "score": time.time() * 1000,
        "crashes": ending.crashes,
        "queue": ending.queue_name,
        QUEUE_NAMES: worker_ctx.get(QUEUE_NAMES, {}),
    }
    return _read(ending.function, ctx, ending.args, ending.kwargs)


def _to_loop(outcome: Outcome, job_id: object) -> "RunOutcome":
    """Turn an outcome into the loop's own."""
    try:
        return Completed(_to_arq(outcome, job_id))
    except Retry as retry:
        return RetryLater(retry.defer_score)
    except FINAL_ERRORS as error:
        return Failed(error)


def _to_arq(outcome: Outcome, job_id: object) -> Any:  # noqa: ANN401 - the job's own result
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
            raise JobDeadError(f"the job is dead: `python -m worker jobs show {job_id}` says why")
        case Conflict():
            raise JobConflictError("this id belongs to a job with another payload")
        case Later(delay):
            raise Retry(defer=delay)
    raise AssertionError(f"an outcome without an answer for arq: {outcome}")
