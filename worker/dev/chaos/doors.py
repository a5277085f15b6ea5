"""How the orders come in: through a session or SQL, some twice, some delivered once more.

What must come of it is known beforehand: every order either goes through or must be refused, so
that each balance at the end follows from the orders alone.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from redis.exceptions import RedisError

from db.enqueue import Candidate, accept_many
from jobs import KeyConflictError
from jobs._payload import payload_json
from jobs._wire import QueuedJob, put
from worker.dev.chaos.retrying import retry_until_up
from worker.dev.workload import transfer

if TYPE_CHECKING:
    from worker.dev.workload import Connections, Order

SQL_SHARE: Final = 0.3
REDELIVERED_SHARE: Final = 0.05
"""Put into Redis once more, as by another client that knows the id."""


class BrokenPromiseError(Exception):
    """Something was accepted that must not be, or answered otherwise than before."""


def moved_cents(done: "Sequence[Order]") -> Counter[UUID]:
    """Return by how much each account's balance must change."""
    change: Counter[UUID] = Counter()
    for order in done:
        if order.goes_through:
            change[order.payer.account] -= order.cents
            change[order.payee.account] += order.cents
    return change


@dataclass
class Doors:
    """Enqueues orders, and remembers what was promised for them."""

    connections: "Connections"
    chance: random.Random
    accepted: dict[str, UUID] = field(default_factory=dict)
    """The job's id by the order's key."""
    repeated: int = 0
    redelivered: int = 0
    refused_twins: int = 0
    """Keys that were used again for another payload, and refused."""

    async def enqueue(self, batch: "Sequence[Order]") -> None:
        """Enqueue a batch, a part of it by SQL, and some of it twice."""
        by_sql = round(len(batch) * SQL_SHARE)
        for orders, enqueue in ((batch[:by_sql], self._by_sql), (batch[by_sql:], self._by_session)):
            for some in (orders, [order for order in orders if order.repeated]):
                self._remember(some, await retry_until_up(partial(enqueue, some)))
        self.repeated += sum(order.repeated for order in batch)
        count = round(len(batch) * REDELIVERED_SHARE)
        await self._redeliver(self.chance.sample(batch, count))
        await self._use_key_again(batch[0])

    async def _by_session(self, some: "Sequence[Order]") -> list[UUID]:
        handles = await self.connections.client.enqueue_many([order.request for order in some])
        return [handle.id for handle in handles]

    async def _by_sql(self, some: "Sequence[Order]") -> list[UUID]:
        candidates = [
            Candidate(order.request.payload.kind, payload_json(order.request.payload), order.key)
            for order in some
        ]
        async with self.connections.sessions() as session, session.begin():
            verdicts = await accept_many(session, candidates)
        return [verdict.id for verdict in verdicts if verdict.id is not None]

    def _remember(self, some: "Sequence[Order]", ids: Sequence[UUID]) -> None:
        for order, job_id in zip(some, ids, strict=True):
            if self.accepted.setdefault(order.key, job_id) != job_id:
                raise BrokenPromiseError(f"the key {order.key} became two jobs")

    async def _redeliver(self, some: "Sequence[Order]") -> None:
        payloads = {str(self.accepted[order.key]): order.request.payload for order in some}
        jobs = [
            QueuedJob(job_id, payload.kind, payload_json(payload))
            for job_id, payload in payloads.items()
        ]
        try:
            await put(self.connections.redis, jobs)
        except (RedisError, OSError):
            return  # Redis does not answer, and no second delivery is owed
        self.redelivered += len(jobs)

    async def _use_key_again(self, order: "Order") -> None:
        """Use a key again for another payload: that must be refused."""
        other = transfer(order.payer.account, order.payee, order.cents % 100 + 1)

        async def is_refused() -> bool:
            try:
                await self.connections.client.enqueue(other, key=order.key)
            except KeyConflictError:
                return True
            return False

        if not await retry_until_up(is_refused):
            raise BrokenPromiseError(f"the key {order.key} was taken for two payloads")
        self.refused_twins += 1
