"""Completions: how a job ended, as Redis is told, and what each outcome means there."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import arq.worker as arq_worker
from arq.constants import default_queue_name
from arq.utils import timestamp_ms, to_ms

from .outcomes import Aborted, Completed, Failed, HandBack, RetryLater, RunOutcome
from .results import run_result

if TYPE_CHECKING:
    from .claims import Claim
    from .decode import ReadyJob

Kind = Literal["done", "again", "back", "unrun"]


@dataclass(
    slots=True
)  # not frozen, because one is made for every job: it costs three times as much
class Completion:
    """How one job ended, as `finish.lua` reads it."""

    job_id: str
    tries: int
    kind: Kind
    """`done`: delete it. `again`: queue it again. `back`: queue it again, and uncount the try.

    `unrun`: like `back`, for a job under which processes died and that did not run now.
    """
    value: bytes | int
    """The result's bytes, or the score at which the job is due again."""
    ttl_ms: int = 0
    """How long the result is kept; 0: forever."""
    keep_ms: int = 0
    """How long the in-progress key outlives the job; 0: not at all."""
    queue_name: str = default_queue_name
    """The queue that the job came from."""


@dataclass(slots=True, eq=False)
class FinishedRun:
    """One run that is over: its outcome, and its times."""

    outcome: RunOutcome
    start_ms: int
    finish_ms: int

    @property
    def times_ms(self) -> tuple[int, int]:
        """When the run started and finished."""
        return self.start_ms, self.finish_ms


def done(claim: "Claim", value: bytes, ttl_ms: int, keep_ms: int = 0) -> Completion:
    """Return the completion of a job that is over, with its result."""
    return Completion(claim.job_id, claim.tries, "done", value, ttl_ms, keep_ms, claim.queue_name)


def queued_again(claim: "Claim", kind: Kind, due_ms: int, keep_ms: int = 0) -> Completion:
    """Return the completion of a job that is due again at `due_ms`."""
    return Completion(claim.job_id, claim.tries, kind, due_ms, 0, keep_ms, claim.queue_name)


def completion_of(
    worker: "arq_worker.Worker", claim: "Claim", job: "ReadyJob", run: FinishedRun
) -> Completion:
    """Turn the outcome of a run into what is written to Redis."""
    keep_ms = _cron_keep_ms() if job.is_cron else 0
    match run.outcome:
        case Completed(result):
            value, ttl_ms = run_result(worker, claim, job, result, run.times_ms, success=True)
        case Failed(error) | Aborted(error):
            value, ttl_ms = run_result(worker, claim, job, error, run.times_ms, success=False)
        case _:
            return completion_again(claim, run.outcome, keep_ms)
    return done(claim, value, ttl_ms, keep_ms)


def completion_again(claim: "Claim", outcome: RunOutcome, keep_ms: int = 0) -> Completion:
    """Turn an outcome that does not end the job into what is written to Redis."""
    match outcome:
        case RetryLater(defer_ms) if defer_ms:
            return queued_again(claim, "again", timestamp_ms() + defer_ms, keep_ms)
        case HandBack():
            return queued_again(claim, "back", claim.score, keep_ms)
        case _:
            return queued_again(claim, "again", claim.score, keep_ms)


def _cron_keep_ms() -> int:
    # Read where arq's worker reads it, so that a program that changes it there changes it here.
    return to_ms(arq_worker.keep_cronjob_progress)  # type: ignore[attr-defined]
