"""How a run ended, and what that means for the job: decided here, acted upon elsewhere."""

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
    """A client asked for the end."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class RetryLater:
    """The function asked to be run again."""

    defer_ms: int | None


@dataclass(frozen=True, slots=True)
class RunAgain:
    """The run was cut short, by the function or from outside; it counts as a try."""


@dataclass(frozen=True, slots=True)
class HandBack:
    """The run was cut short by our own shutdown; it does not count."""


Verdict = Completed | Failed | Aborted | RetryLater | RunAgain | HandBack


def judge(
    error: BaseException, *, retry_jobs: bool, aborting: bool, shutting_down: bool
) -> Verdict:
    """Decide what an exception means, by arq's rules; only the shutdown is ours."""
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
        # A job that leaves would take the worker with it, and then the next worker, and the next.
        return Failed(JobExecutionFailed(f"the job called sys.exit({error.code!r})"))
    return Failed(error)
