"""A workbench for tests: one database, and an executor that runs there what is due.

It runs jobs as a worker does without Redis: one after another, by their rows, each in a transaction
that counts, with its retries, its follow-ups and its time. So a test sees what a deployment would.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from db.execution import JobRef
from db.operations import Whole, find_job
from db.store import Store
from jobs import Client, registry
from worker.execution.delivery import Delivery
from worker.execution.executor import Executor
from worker.monitoring.events import Events

if TYPE_CHECKING:
    from datetime import timedelta
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from jobs._services import Services

RUNS_MAX: Final = 10_000
"""Runs of `run_due`: jobs that enqueue each other without end are a fault of the test."""

NEXT_DUE: Final = text("""
    SELECT id, kind, enqueued_at, attempts FROM jobs
    WHERE state = 'queued' AND run_at <= clock_timestamp()
    ORDER BY run_at, id LIMIT 1
""")

ADVANCE: Final = text(
    "UPDATE jobs SET run_at = run_at - CAST(:by AS interval) WHERE state = 'queued'"
)


class StillDueError(AssertionError):
    """Jobs are still due after `RUNS_MAX` runs."""


@dataclass
class Workbench:
    """One database, and what a test does with its jobs."""

    engine: "AsyncEngine"
    sessions: "async_sessionmaker[AsyncSession]"
    services: "Services"
    client: Client = field(init=False)
    """Enqueues in this database."""
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """What a worker would have logged and counted."""

    def __post_init__(self) -> None:
        """Make the client and the executor."""
        self.client = Client(sessions=self.sessions)
        self._executor = Executor(
            *(self.engine, Events(lambda name, fields: self.events.append((name, fields)))),
            open_store=Store,
            services=self.services,
            jitter=lambda: 0.0,
        )

    async def run_due(self) -> list[Whole]:
        """Run every job that is due, and what becomes due by it, until nothing is.

        Returns:
            Each job's row after each of its runs, in the order of the runs.

        Raises:
            StillDueError: jobs enqueue each other without end.
        """
        ran: list[Whole] = []
        while (due := await self._next_due()) is not None:
            if len(ran) >= RUNS_MAX:
                raise StillDueError(f"jobs are still due after {RUNS_MAX:,} runs")
            await self._executor.run(registry().get(due.job.kind), due)
            ran.append(await self.job(due.job.id))
        return ran

    async def advance(self, by: "timedelta") -> None:
        """Let time pass for what waits: retries, snoozed and scheduled jobs come nearer."""
        async with self.sessions.begin() as session:
            await session.execute(ADVANCE, {"by": by})

    async def job(self, job_id: "UUID") -> Whole:
        """Return a job's row: its state, result, errors and times.

        Raises:
            LookupError: there is none.
        """
        async with self.sessions() as session:
            found = await find_job(session, job_id)
        if found is None:
            raise LookupError(f"there is no job {job_id}")
        return found

    async def _next_due(self) -> Delivery | None:
        async with self.sessions() as session:
            row = (await session.execute(NEXT_DUE)).one_or_none()
        if row is None:
            return None
        job = JobRef(row.id, row.kind, "null", row.enqueued_at)
        return Delivery(job, row.attempts + 1, by_id=True)
