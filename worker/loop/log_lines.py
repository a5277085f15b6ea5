"""arq's log lines, word for word; nothing is formatted unless somebody listens."""

import logging
from typing import TYPE_CHECKING, Any

from arq.utils import args_to_string, timestamp_ms, truncate

from . import decode as opening
from .outcomes import Aborted, Completed, Failed, HandBack, RetryLater, RunAgain, Verdict

if TYPE_CHECKING:
    from .decode import OpenJob, Refusal

logger = logging.getLogger("arq.worker")

DELAY_SHOWN_MS = 1200


def job_starts(job: "OpenJob", start_ms: int) -> None:
    """Say that a job starts."""
    if not logger.isEnabledFor(logging.INFO):
        return
    extra = f" try={job.job_try}" if job.job_try > 1 else ""
    if start_ms - job.score > DELAY_SHOWN_MS:
        extra += f" delayed={(start_ms - job.score) / 1000:0.2f}s"
    waited_s = (start_ms - job.enqueue_ms) / 1000
    arguments = _shown(args_to_string, job.args, job.kwargs)
    logger.info("%6.2fs → %s(%s)%s", waited_s, job.ref, arguments, extra)


def job_ends(job: "OpenJob", verdict: Verdict, run_ms: int, *, log_result: bool) -> None:
    """Say how a job ended."""
    run_s = run_ms / 1000
    match verdict:
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


def _job_failed(job: "OpenJob", error: BaseException, run_s: float) -> None:
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
    """Say why a job is not run."""
    waited_s = (timestamp_ms() - refusal.enqueue_ms) / 1000
    match refusal.reason:
        case opening.EXPIRED:
            logger.warning("job %s expired", job_id)
        case opening.UNREADABLE:
            logger.error("deserializing job %s failed", job_id, exc_info=refusal.error)
        case opening.ABORTED:
            logger.info("%6.2fs ⊘ %s:%s aborted before start", waited_s, job_id, refusal.name)
        case opening.UNKNOWN_FUNCTION:
            logger.error(
                "job %s, function %r not found: no worker knew it in time, it ends as failed",
                job_id,
                refusal.name,
            )
        case opening.OUT_OF_TRIES:
            logger.warning(
                "%6.2fs ! %s:%s max retries %d exceeded",
                waited_s,
                job_id,
                refusal.name,
                refusal.tries_max,
            )


def job_put_back(job_id: str, name: str, delay_s: float) -> None:
    """Say that a job waits for a worker that knows its function."""
    logger.warning(
        "job %s, function %r not found: put back for %.1fs, for a worker that knows it",
        job_id,
        name,
        delay_s,
    )


def _short(result: object) -> str:
    return truncate(repr(result))


def _shown(show: Any, *values: Any) -> Any:  # noqa: ANN401 - anything can be shown
    """Show values whose own code may fail; a log line is no reason to fail a job."""
    try:
        return show(*values)
    except Exception as error:  # noqa: BLE001 - a user's __repr__ can raise anything
        return f"<cannot be shown: {type(error).__name__}>"
