"""The outcomes of a run, and which of them an exception means; `runner.py` acts on them."""

import asyncio
from dataclasses import dataclass
from typing import Any

from arq.worker import JobExecutionFailed, Retry, RetryJob


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


def outcome_of(
    error: BaseException, *, retry_jobs: bool, aborting: bool, shutting_down: bool
) -> RunOutcome:
    """Return the outcome that an exception means: by arq's rules, but for `HandBack`."""
    cancelled = isinstance(error, asyncio.CancelledError)
    if retry_jobs and isinstance(error, Retry):
        return RetryLater(error.defer_score)
    if aborting and cancelled:
        return Aborted(error)
    if retry_jobs and cancelled and shutting_down:
        return HandBack()
    if retry_jobs and (cancelled or isinstance(error, RetryJob)):
        return RunAgain()
    if isinstance(error, SystemExit):
        # Let through, it would end this worker, then the next one that the job is delivered to.
        return Failed(JobExecutionFailed(f"the job called sys.exit({error.code!r})"))
    return Failed(error)
