"""Executors on real servers with transfers to run, and what must hold afterwards."""

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from db.execution import Delivered
from jobs import registry
from jobs._reports import Reports
from tests.bank.kit import broken_rules
from worker.execution.delivery import Delivery, with_payload
from worker.execution.executor import Executor
from worker.monitoring.events import Events

TRANSFER = registry()["transfer_funds"]


@dataclass
class Till:
    """An executor that is given transfers, and everything it told."""

    executor: Executor
    sessions: Any
    told: list

    async def run(self, delivery):
        return await self.executor.run(TRANSFER, delivery)

    def count(self, event):
        return sum(name == event for name, _ in self.told)

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


def till(sessions, jitter=lambda: 0.0):
    told = []
    events = Events(lambda name, fields: told.append((name, fields)))
    executor = Executor(sessions.kw["bind"], events, Reports("file:///nowhere"), jitter=jitter)
    return Till(executor, sessions, told)


def transfer(payer, payee, amount="0.01", *, job_id=None, try_number=1):
    """Return a delivery of one transfer."""
    job = Delivered(
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
