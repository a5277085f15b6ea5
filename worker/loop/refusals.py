"""Jobs that are not run: refused for good, or left to a worker that knows their function."""

import asyncio
from typing import TYPE_CHECKING, Final

from . import decode, log_lines, unknown
from .completions import completion_again, done
from .ends import ending
from .outcomes import Aborted, Completed, Failed
from .results import passed_over, refusal_result
from .scripts import PUT_BACK

if TYPE_CHECKING:
    import arq.worker
    from arq.jobs import JobResult

    from .claims import Claim
    from .connection import Connection
    from .decode import Refusal
    from .ends import Ends

UNKNOWN_AGE_MAX_MS: Final = 24 * 3_600_000
"""How long a job waits for a worker that knows its function before it ends as failed."""
UNKNOWN_DELAY_GROWTH: Final = 0.1
"""Each wait is this part of the time the job has waited already; `unknown.py` has its bounds."""


class Refusals:
    """Deals with the claims of one worker that it cannot run."""

    def __init__(
        self, worker: "arq.worker.Worker", worker_id: str, connection: "Connection", ends: "Ends"
    ) -> None:
        self._worker = worker
        self._worker_id = worker_id
        self._connection = connection
        self._ends = ends
        self._unknown = unknown.UnknownFunctions()
        self.passed_over: dict[str, JobResult] = {}
        """What a burst run reports of jobs that it left in the queue, by id."""

    async def refuse(self, claim: "Claim", refusal: "Refusal") -> None:
        """End a job without a run, or put it back for a worker that can run it."""
        if refusal.reason == decode.UNKNOWN_FUNCTION and await self._put_back(claim, refusal):
            return
        aborted = refusal.reason == decode.ABORTED
        announced = Aborted(refusal.error) if aborted else Failed(refusal.error)
        outcome = await self._ends.confirm(ending(claim, refusal.reason, announced, refusal))
        self._ends.count(claim, outcome)
        match outcome:
            case Completed(result):
                value = refusal_result(self._worker, claim, refusal, result, success=True)
            case Failed(error) | Aborted(error):
                log_lines.job_refused(claim.job_id, refusal)
                value = refusal_result(self._worker, claim, refusal, error, success=False)
            case _:
                await self._ends.record(claim, completion_again(claim, outcome))
                return
        await self._ends.record(claim, done(claim, *value))

    async def _put_back(self, claim: "Claim", refusal: "Refusal") -> bool:
        """Leave a job to a worker that knows its function; False when it has waited too long."""
        delay_min_ms, say = self._unknown.note(refusal.name, asyncio.get_running_loop().time())
        args = (
            *(self._worker_id, claim.job_id, claim.tries),
            *(UNKNOWN_AGE_MAX_MS, delay_min_ms, unknown.DELAY_MAX_MS),
            *(UNKNOWN_DELAY_GROWTH, int(claim.crashes > 0)),
        )
        put_back = PUT_BACK(self._worker.pool, (claim.queue_name,), args)
        delay_ms = await self._connection.call(put_back)
        if delay_ms < 0:
            return False
        log_lines.job_put_back(claim.job_id, refusal.name, delay_ms / 1000, say=say)
        claim.counted = True
        if self._worker.burst and claim.job_id not in self.passed_over:
            self._worker.jobs_failed += 1
            self.passed_over[claim.job_id] = passed_over(claim, refusal)
        return True
