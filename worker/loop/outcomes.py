"""The outcomes of a run, and which of them an exception means; `runner.py` acts on them."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from arq.worker import JobExecutionFailed, Retry, RetryJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

RETRY_DELAY_MIN_MS: Final = 1_000
RETRY_DELAY_MAX_MS: Final = 60_000
"""How long a job waits whose error is not final: it doubles with each try, between these two."""
DEFER_MAX_MS: Final = 10 * 366 * 86_400_000
"""The longest delay that a `Retry` is taken at its word for."""


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned."""

    result: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised, and that is final."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Aborted:
    """A client aborted the job."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The function raised `Retry`."""

    defer_ms: int | None


@dataclass(frozen=True, slots=True)
class RunAgain:
    """The run was cut short, by `RetryJob` or a cancellation; it counts as a try."""


@dataclass(frozen=True, slots=True)
class HandBack:
    """The run was cut short by the worker's own shutdown; it does not count as a try."""


RunOutcome = Completed | Failed | Aborted | RetryLater | RunAgain | HandBack


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a job that its function did not choose, before anything is written to Redis."""

    job_id: str
    reason: str
    """A constant of `decode.py`; `ABORTED` also for a job that was cancelled while it ran."""
    outcome: RunOutcome
    """What Redis is about to be told: `Failed` or `Aborted`."""
    function: str
    args: "Sequence[Any]"
    kwargs: "Mapping[str, Any]"
    body: bytes | None
    """What Redis holds for the job; None when it has expired."""
    tries: int
    crashes: int
    enqueue_ms: int
    queue_name: str


def is_final(error: BaseException) -> bool:  # noqa: ARG001 - a seam; others look at the error
    """Return whether an error ends its job: arq's rule, by which every error does."""
    return True


def retry_delay_ms(tries: int) -> int:
    """Return how long a job waits after its so manieth try.

    >>> retry_delay_ms(1), retry_delay_ms(3), retry_delay_ms(10**9)
    (1000, 4000, 60000)
    """
    return min(RETRY_DELAY_MAX_MS, RETRY_DELAY_MIN_MS << min(max(tries, 1) - 1, 16))


def outcome_of(  # noqa: PLR0911, PLR0913 - one rule per line
    error: BaseException,
    *,
    retry_jobs: bool,
    aborting: bool,
    shutting_down: bool,
    is_final: "Callable[[BaseException], bool]" = is_final,
    job_try: int = 1,
) -> RunOutcome:
    """Return the outcome that an exception means: by arq's rules, but for `HandBack`.

    Only the error's type is looked at: its attributes are the job's, and may raise.
    """
    kind = type(error)
    cancelled = issubclass(kind, asyncio.CancelledError)
    if retry_jobs and issubclass(kind, Retry):
        return RetryLater(_defer_ms(error))
    if aborting and cancelled:
        return Aborted(error)
    if retry_jobs and cancelled and shutting_down:
        return HandBack()
    if retry_jobs and (cancelled or issubclass(kind, RetryJob)):
        return RunAgain()
    if not is_final(error):
        return RetryLater(retry_delay_ms(job_try))
    if cancelled or issubclass(kind, Exception):
        return Failed(error)
    # Let through, it would end this worker, then the next one that the job is delivered to.
    return Failed(JobExecutionFailed(describe_exit(error)))


def _defer_ms(error: BaseException) -> int | None:
    """Return a retry's delay; one that is no number counts as none."""
    try:
        defer_ms = getattr(error, "defer_score", None)
        return None if defer_ms is None else min(max(int(defer_ms), 0), DEFER_MAX_MS)
    except BaseException:  # noqa: BLE001 - the attribute of a job's own error can raise anything
        return None


def describe_exit(error: BaseException) -> str:
    """Say what a job did that raised what is no ordinary error; in safe words."""
    try:
        if isinstance(error, SystemExit):
            return f"the job called sys.exit({error.code!r})"
        return f"the job raised {type(error).__name__}: {error}"
    except BaseException:  # noqa: BLE001 - so can its text
        return f"the job raised {type(error).__name__}"
