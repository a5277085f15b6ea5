"""The executor, watched: counts what runs and, where spans are collected, makes one of each run."""

from typing import TYPE_CHECKING, Any

from worker.execution.executor import Executor

if TYPE_CHECKING:
    from jobs import Job
    from worker.execution.delivery import Delivery
    from worker.execution.outcome import Outcome
    from worker.monitoring.state import Condition
    from worker.monitoring.tracing import Tracing


class ObservedExecutor(Executor):
    """An executor that leaves traces."""

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - the executor's own
        condition: "Condition",
        tracing: "Tracing | None" = None,
    ) -> None:
        super().__init__(*args)
        self._condition = condition
        self._tracing = tracing

    async def run(self, job: "Job", delivery: "Delivery") -> "Outcome":
        """Run one delivery to its outcome."""
        self._condition.jobs_running += 1
        try:
            if self._tracing is None:
                return await super().run(job, delivery)
            caller = await self._tracing.caller_of(delivery)
            with self._tracing.span(delivery, caller):
                return await super().run(job, delivery)
        finally:
            self._condition.jobs_running -= 1
