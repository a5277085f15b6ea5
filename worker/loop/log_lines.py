"""arq's log lines, word for word; nothing is formatted for a level that is switched off."""

import logging
from typing import TYPE_CHECKING, Any, Final

from arq.utils import args_to_string, timestamp_ms, truncate

from . import decode
from .outcomes import Aborted, Completed, Failed, HandBack, RetryLater, RunAgain, RunOutcome

if TYPE_CHECKING:
    from .decode import ReadyJob, Refusal

logger = logging.getLogger("arq.worker")

DELAY_SHOWN_MS: Final = 1200
"""A job that starts this late has its delay in the log line."""


def job_starts(job: "ReadyJob", start_ms: int) -> None:
    """Log that a job starts."""
    if not logger.isEnabledFor(logging.INFO):
        return
    extra = f" try={job.job_try}" if job.job_try > 1 else ""
    if start_ms - job.score > DELAY_SHOWN_MS:
        extra += f" delayed={(start_ms - job.score) / 1000:0.2f}s"
    waited_s = (start_ms - job.enqueue_ms) / 1000
    arguments = _shown(args_to_string, job.args, job.kwargs)
    logger.info("%6.2fs → %s(%s)%s", waited_s, job.ref, arguments, extra)


def job_ends(job: "ReadyJob", outcome: RunOutcome, run_ms: int, *, log_result: bool) -> None:
    """Log how a job ended."""
    run_s = run_ms / 1000
    match outcome:
        case Completed(result):
            if logger.isEnabledFor(logging.INFO):
                shown = "" if result is None or not log_result else _shown(_short, result)
                logger.info("%6.2fs ← %s ● %s", run_s, job.ref, shown)
        case Failed(error):
            _job_failed(job, error, run_s)
        case Aborted():
            logger.info("%6.2fs ⊘ %s aborted", run_s, job.ref)
        case RetryLater(defer_ms):
            logger.info(
                "%6.2fs ↻ %s retrying job in %0.2fs", run_s, job.ref, (defer_ms or 0) / 1000
            )
        case RunAgain() | HandBack():
            logger.info("%6.2fs ↻ %s cancelled, will be run again", run_s, job.ref)


def _job_failed(job: "ReadyJob", error: BaseException, run_s: float) -> None:
    extra = getattr(error, "extra", None)
    if callable(extra):
        extra = _shown(extra)
    name = type(error).__name__
    logger.error(
        "%6.2fs ! %s failed, %s: %s",
        run_s,
        job.ref,
        name,
        error,
        exc_info=error,
        extra={"extra": extra},
    )


def job_refused(job_id: str, refusal: "Refusal") -> None:
    """Log why a job is not run."""
    waited_s = (timestamp_ms() - refusal.enqueue_ms) / 1000
    match refusal.reason:
        case decode.EXPIRED:
            logger.warning("job %s expired", job_id)
        case decode.UNREADABLE:
            logger.error("deserializing job %s failed", job_id, exc_info=refusal.error)
        case decode.ABORTED:
            logger.info("%6.2fs ⊘ %s:%s aborted before start", waited_s, job_id, refusal.name)
        case decode.UNKNOWN_FUNCTION:
            logger.error(
                "job %s, function %r not found: no worker knew it in time, it ends as failed",
                job_id,
                refusal.name,
            )
        case decode.OUT_OF_TRIES:
            logger.warning(
                "%6.2fs ! %s:%s max retries %d exceeded",
                waited_s,
                job_id,
                refusal.name,
                refusal.tries_max,
            )


def job_put_back(job_id: str, name: str, delay_s: float) -> None:
    """Log that a job waits for a worker that knows its function."""
    logger.warning(
        "job %s, function %r not found: put back for %.1fs, for a worker that knows it",
        job_id,
        name,
        delay_s,
    )


def _short(result: object) -> str:
    return truncate(repr(result))


def _shown(show: Any, *values: Any) -> Any:  # noqa: ANN401 - anything can be shown
    """Format values whose own `__repr__` may fail: a log line must not fail a job."""
    try:
        return show(*values)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ can raise anything
        return f"<cannot be shown: {type(error).__name__}>"
