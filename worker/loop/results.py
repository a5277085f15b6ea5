"""Results as arq's clients read them: of jobs that ran, and of jobs that were refused."""

import logging
from typing import TYPE_CHECKING, Any, Final

from arq.jobs import JobResult, serialize_result
from arq.utils import ms_to_datetime, timestamp_ms, to_ms

if TYPE_CHECKING:
    import arq.worker

    from .claims import Claim
    from .decode import ReadyJob, Refusal

logger = logging.getLogger("arq.worker")

NOT_KEPT: Final = (b"", 0)
KEEP_MAX_MS: Final = 100 * 366 * 86_400_000
"""The longest that a result is kept; Redis refuses times that overflow."""


def run_result(  # noqa: PLR0913 - what arq keeps of a run
    worker: "arq.worker.Worker",
    claim: "Claim",
    job: "ReadyJob",
    outcome: object,
    times_ms: tuple[int, int],
    *,
    success: bool,
) -> tuple[bytes, int]:
    """Return a result's bytes, none if it is not kept, and its lifetime in ms (0: forever)."""
    function = job.function
    forever = function.keep_result_forever
    forever = worker.keep_result_forever if forever is None else forever
    keep_s = worker.keep_result_s if function.keep_result_s is None else function.keep_result_s
    if not (forever or keep_s > 0):
        return NOT_KEPT
    start_ms, finish_ms = times_ms
    data = _serialize(
        job.name,
        job.args,
        job.kwargs,
        job.job_try,
        job.enqueue_ms,
        success,
        outcome,
        start_ms,
        finish_ms,
        job.ref,
        claim.queue_name,
        job_id=job.job_id,
        serializer=worker.job_serializer,
    )
    return data, 0 if forever else min(to_ms(keep_s), KEEP_MAX_MS)


def refusal_result(
    worker: "arq.worker.Worker",
    claim: "Claim",
    refusal: "Refusal",
    outcome: object,
    *,
    success: bool,
) -> tuple[bytes, int]:
    """Return the result of a job that did not run; kept by the worker's settings, as in arq."""
    if not (worker.keep_result_forever or worker.keep_result_s > 0):
        return NOT_KEPT
    now_ms = timestamp_ms()
    data = _serialize(
        refusal.name,
        refusal.args,
        refusal.kwargs,
        claim.tries,
        refusal.enqueue_ms,
        success=success,
        result=outcome,
        start_ms=now_ms,
        finished_ms=now_ms,
        ref=f"{claim.job_id}:{refusal.name}",
        queue_name=claim.queue_name,
        job_id=claim.job_id,
        serializer=worker.job_serializer,
    )
    keep_ms = 0 if worker.keep_result_forever else to_ms(worker.keep_result_s)
    return data, min(keep_ms, KEEP_MAX_MS)


def passed_over(claim: "Claim", refusal: "Refusal") -> JobResult:
    """Return the failure that a burst run reports for a job that it left in the queue."""
    now = ms_to_datetime(timestamp_ms())
    return JobResult(
        function=refusal.name,
        args=refusal.args,
        kwargs=refusal.kwargs,
        job_try=claim.tries,
        enqueue_time=ms_to_datetime(refusal.enqueue_ms),
        score=claim.score,
        job_id=claim.job_id,
        success=False,
        result=refusal.error,
        start_time=now,
        finish_time=now,
        queue_name=claim.queue_name,
    )


def _serialize(*args: Any, **kwargs: Any) -> bytes:  # noqa: ANN401 - arq's dozen fields
    """Return a result's bytes; none where even arq's stand-in for it cannot be written."""
    try:
        return serialize_result(*args, **kwargs) or b""
    except BaseException as error:  # noqa: BLE001 - a serializer may raise what it likes
        logger.error("a result cannot be serialized, it is not kept: %s", type(error))  # noqa: TRY400
        return b""
