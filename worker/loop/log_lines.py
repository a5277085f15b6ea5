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


def suspect_starts(job_id: str, crashes: int) -> None:
    """Log that a job runs alone, and why."""
    logger.warning("job %s runs alone: %d processes died while they ran it", job_id, crashes)


def job_ends(job: "ReadyJob", outcome: RunOutcome, run_ms: int, *, log_result: bool) -> None:
    """Log how a job ended; whatever its result or error does, this does not fail."""
    run_s = run_ms / 1000
    try:
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
                wait_s = (defer_ms or 0) / 1000
                logger.info("%6.2fs ↻ %s retrying job in %0.2fs", run_s, job.ref, wait_s)
            case RunAgain() | HandBack():
                logger.info("%6.2fs ↻ %s cancelled, will be run again", run_s, job.ref)
    except BaseException as error:  # noqa: BLE001 - a user's attributes can raise anything
        logger.warning("%6.2fs %s: its end cannot be shown, %s", run_s, job.ref, type(error))


def _job_failed(job: "ReadyJob", error: BaseException, run_s: float) -> None:
    logger.error(
        "%6.2fs ! %s failed, %s: %s",
        run_s,
        job.ref,
        type(error).__name__,
        _shown(str, error),
        exc_info=error,
        extra={"extra": _shown(_extra_of, error)},
    )


def _extra_of(error: BaseException) -> object:
    extra = getattr(error, "extra", None)
    return extra() if callable(extra) else extra


def name_of(hook: object) -> str:
    """Return a hook's name; a partial, or an object that can be called, has its type's."""
    return _shown(lambda: getattr(hook, "__qualname__", type(hook).__qualname__))  # type: ignore[no-any-return]


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


def job_put_back(job_id: str, name: str, delay_s: float, *, say: bool) -> None:
    """Log that a job waits for a worker that knows its function; once a minute per function."""
    logger.log(
        logging.WARNING if say else logging.DEBUG,
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
    except BaseException as error:  # noqa: BLE001 - a user's __repr__ can raise anything
        return f"<cannot be shown: {type(error).__name__}>"
