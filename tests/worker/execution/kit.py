"""Executors on real servers that record their events, and letters to send."""

import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text

from db.execution import JobRef
from db.store import Store
from tests.letters import SEND_LETTER
from worker.execution.delivery import Delivery, with_payload
from worker.execution.executor import Executor
from worker.monitoring.events import Events


@dataclass
class RecordingExecutor:
    """An executor, and every event that it emitted."""

    executor: Executor
    sessions: Any
    emitted: list

    async def run(self, delivery, job=SEND_LETTER):
        return await self.executor.run(job, delivery)

    def names(self):
        return [name for name, _ in self.emitted]

    def count(self, event):
        return self.names().count(event)

    async def sent(self, ids):
        """Return which of these letters were sent, each as often as it was, in order."""
        async with self.sessions() as session:
            rows = await session.execute(
                text("SELECT id FROM samples.letters WHERE id = ANY(:ids) ORDER BY id"),
                {"ids": list(ids)},
            )
            return list(rows.scalars())

    async def states(self, ids):
        async with self.sessions() as session:
            rows = await session.execute(
                text("SELECT id, state FROM jobs WHERE id = ANY(:ids)"), {"ids": list(ids)}
            )
            return {row.id: row.state for row in rows}


NO_SERVICES: Any = None
NO_STORE: Any = None
"""For jobs that use none."""


def recording_executor(sessions, jitter=lambda: 0.0, **options):
    emitted = []
    events = Events(lambda name, fields: emitted.append((name, fields)))
    executor = Executor(
        *(sessions.kw["bind"], events),
        open_store=Store,
        services=NO_SERVICES,
        jitter=jitter,
        **options,
    )
    return RecordingExecutor(executor, sessions, emitted)


def letter(address="12 High Street", pages=1, *, job_id=None, try_number=1):
    """Return a delivery of one letter."""
    job = JobRef(
        id=job_id or uuid.uuid4(),
        kind="send_letter",
        payload_json="null",
        enqueued_at=datetime.now(UTC),
    )
    return with_payload(Delivery(job, try_number), {"address": address, "pages": pages})


def again(delivery):
    """Return the same job as it is delivered a second time."""
    return replace(delivery, try_number=delivery.try_number + 1)
