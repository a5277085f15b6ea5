"""Our loop, with what it owes the record: an abort is written down there, and first."""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from worker.loop import Worker
from worker.loop.decode import ABORTED

if TYPE_CHECKING:
    from worker.execution.executor import Executor
    from worker.loop.claims import Claim
    from worker.loop.decode import Refusal

SERVING: Final = "teller_worker"
"""The worker's place in its own ctx; absent where arq's stock loop runs our functions."""

EXECUTOR: Final = "teller_executor"
"""The executor's place in arq's ctx."""


class ServingWorker(Worker):
    """The worker of `python -m worker run`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - arq's thirty options
        super().__init__(*args, **kwargs)
        self.ctx[SERVING] = self

    def is_aborting(self, redis_id: str) -> bool:
        """Tell whether a client has asked for this job's end."""
        return redis_id in self.aborting_tasks

    async def _refuse(self, claim: "Claim", refusal: "Refusal") -> None:
        """Refuse a job that cannot run; one that was aborted is cancelled in the record too.

        In the record first: a job that Redis has forgotten and the record has not is sent again.
        """
        executor: Executor | None = self.ctx.get(EXECUTOR)
        if refusal.reason == ABORTED and executor is not None:
            await executor.abort(claim.job_id)
        await super()._refuse(claim, refusal)


async def aborted_in_record(ctx: dict[Any, Any]) -> bool:
    """After a cancellation: if it was an abort, cancel the job in the record, and say so.

    Must be awaited from the cancelled task itself, before it lets the cancellation go on.
    """
    serving: ServingWorker | None = ctx.get(SERVING)
    if serving is None or not serving.is_aborting(ctx["job_id"]):
        return False
    await asyncio.shield(ctx[EXECUTOR].abort(ctx["job_id"]))
    return True
