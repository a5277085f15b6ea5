"""The end of a claim: confirmed where the function did not choose it, counted, sent to Redis."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from .completions import queued_again
from .outcomes import Aborted, Completed, Ending, Failed, HandBack, RetryLater, RunOutcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import arq.worker

    from .claims import Claim
    from .completer import Completer
    from .completions import Completion
    from .decode import ReadyJob, Refusal
    from .queues import Queues

logger = logging.getLogger("arq.worker")

UNCONFIRMED_DELAY_MS: Final = 2_000
"""How long a job waits whose end `confirm_end` failed to confirm."""


class Ends:
    """Ends the claims of one worker."""

    def __init__(
        self, worker: "arq.worker.Worker", queues: "Queues", completer: "Completer"
    ) -> None:
        self._worker = worker
        self._queues = queues
        self._completer = completer
        self.confirm_end: Callable[[Ending], Awaitable[RunOutcome]] | None = None
        """Awaited before an end that the job's function did not choose: a refusal or an abort.

        Nothing about the job is deleted from Redis before the answer, which is how the job ends:

        - `ending.outcome`: as announced; whoever it concerns has recorded it.
        - another `Completed` or `Failed`: the job had ended otherwise, and its caller is told that.
        - `RetryLater(defer_ms)`: it cannot be recorded now. The job is queued again, its abort is
          kept, and the question comes again with the next delivery.

        If it raises, the job is queued again too.
        """

    async def confirm(self, ending: Ending) -> RunOutcome:
        """Return how a job really ends whose function did not choose the end."""
        if self.confirm_end is None:
            return ending.outcome
        try:
            return await self.confirm_end(ending)
        except asyncio.CancelledError:
            forget_cancel(asyncio.current_task())
            return HandBack()
        except BaseException as error:
            if is_closed(error):
                raise
            logger.exception(
                "job %s: its end is not confirmed (%s), it will be delivered again",
                ending.job_id,
                ending.reason,
            )
            return RetryLater(UNCONFIRMED_DELAY_MS)

    def count(self, claim: "Claim", outcome: RunOutcome) -> None:
        """Count a run in the worker's figures."""
        claim.counted = True
        match outcome:
            case Completed():
                self._worker.jobs_complete += 1
            case Failed() | Aborted():
                self._worker.jobs_failed += 1
            case _:
                self._worker.jobs_retried += 1

    async def record(self, claim: "Claim", completion: "Completion") -> None:
        """Send a completion, and wait until Redis has stored it."""
        claim.ended = claim.recording = True
        recorded = self._completer.add(completion)
        if self._worker.after_job_end is None:
            # The slot is free: the next claim may travel together with this record.
            self._queues[claim.queue_name].free(claim)
        try:
            await recorded
        except asyncio.CancelledError:
            # The completion is sent all the same; `Worker.close` waits for the completer.
            logger.debug("job %s: cancelled while its end was being recorded", claim.job_id)
        claim.recording = False

    def give_back(self, claim: "Claim", due_ms: int) -> None:
        """Release a job that was not started, to be claimed again from `due_ms` on."""
        kept = claim.crashes and not claim.opened
        self._completer.add(queued_again(claim, "unrun" if kept else "back", due_ms))


def ending(claim: "Claim", reason: str, outcome: RunOutcome, job: "ReadyJob | Refusal") -> Ending:
    """Return the end of a job, to be confirmed.

    Args:
        claim: the job's.
        reason: why it ends, a constant of `decode.py`.
        outcome: what Redis is about to be told.
        job: its function and arguments.
    """
    return Ending(
        job_id=claim.job_id,
        reason=reason,
        outcome=outcome,
        function=job.name,
        args=job.args,
        kwargs=job.kwargs,
        body=claim.body,
        tries=claim.tries,
        crashes=claim.crashes,
        enqueue_ms=claim.enqueue_ms,
        queue_name=claim.queue_name,
    )


def forget_cancel(task: "asyncio.Task[Any] | None") -> None:
    """Take back a cancellation: the job's end follows, and must not find its task cancelled."""
    while task is not None and task.cancelling():
        task.uncancel()


def is_closed(error: BaseException) -> bool:
    """Return whether an error says that this coroutine is closed, and not what a job raised.

    A coroutine that is closed, because its event loop was, is not run by a task.
    """
    if not issubclass(type(error), GeneratorExit):  # `isinstance` reads an attribute of the error
        return False
    try:
        return asyncio.current_task() is None
    except RuntimeError:
        return True
