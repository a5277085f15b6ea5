"""Executors on real servers that record their events, and transfers to run."""

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from db.execution import JobRef
from db.store import Store
from jobs import registry
from tests.bank.kit import broken_rules
from worker.execution.delivery import Delivery, with_payload
from worker.execution.executor import Executor
from worker.monitoring.events import Events

TRANSFER = registry()["transfer_funds"]


@dataclass
class RecordingExecutor:
    """An executor, and every event that it emitted."""

    executor: Executor
    sessions: Any
    emitted: list

    async def run(self, delivery, job=TRANSFER):
        return await self.executor.run(job, delivery)

    def names(self):
        return [name for name, _ in self.emitted]

    def count(self, event):
        return self.names().count(event)

    async def posted(self, ids):
        """Return which of these transfers the books have."""
        async with self.sessions() as session:
            rows = await session.execute(
                text("SELECT id FROM transfers WHERE id = ANY(:ids)"), {"ids": list(ids)}
            )
            return {row.id for row in rows}

    async def states(self, ids):
        async with self.sessions() as session:
            rows = await session.execute(
                text("SELECT id, state FROM jobs WHERE id = ANY(:ids)"), {"ids": list(ids)}
            )
            return {row.id: row.state for row in rows}

    async def broken_rules(self):
        async with self.sessions() as session:
            return await broken_rules(session)


NO_SERVICES: Any = None
"""For jobs that use none."""


def recording_executor(sessions, jitter=lambda: 0.0):
    emitted = []
    events = Events(lambda name, fields: emitted.append((name, fields)))
    executor = Executor(
        *(sessions.kw["bind"], events), open_store=Store, services=NO_SERVICES, jitter=jitter
    )
    return RecordingExecutor(executor, sessions, emitted)


def transfer(payer, payee, amount="0.01", *, job_id=None, try_number=1):
    """Return a delivery of one transfer."""
    job = JobRef(
        id=job_id or uuid.uuid4(),
        kind="transfer_funds",
        payload_json="null",
        enqueued_at=datetime.now(UTC),
    )
    raw = {
        "from_account": str(payer),
        "to_account": str(payee),
        "amount": amount,
        "currency": "EUR",
    }
    return with_payload(Delivery(job, try_number), raw)


def again(delivery):
    """Return the same job as it is delivered a second time."""
    return replace(delivery, try_number=delivery.try_number + 1)
