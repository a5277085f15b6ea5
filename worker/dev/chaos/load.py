"""The work that goes on meanwhile: accounts, money in them, and transfers through every door.

What must come of it is known beforehand: every order either goes through or must be refused, so
that each balance at the end follows from the orders alone.
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from redis.exceptions import RedisError

from db.enqueue import Candidate, accept_many
from jobs import Client, KeyConflictError, Request
from jobs._payload import payload_json
from jobs._wire import QueuedJob, put
from jobs.create_user import CreateUser
from jobs.transfer_funds import TransferFunds
from worker.dev.chaos.patience import insist

if TYPE_CHECKING:
    from arq.connections import ArqRedis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

USERS: Final = 24
CURRENCY: Final = "EUR"
DEPOSIT: Final = "1000000.00"
CENTS_MAX: Final = 300
CROSSING_SHARE: Final = 0.2
"""A pays B while B pays A, on a few accounts that everybody uses."""
HOT: Final = 4
REFUSED_SHARE: Final = 0.02
"""More than anybody has."""
TOO_MUCH_CENTS: Final = 9_999_999_999
AGAIN_SHARE: Final = 0.05
"""Asked for a second time, as after a lost answer."""
REDELIVERED_SHARE: Final = 0.05
"""Put into Redis once more, as by another client that knows the id."""
SQL_SHARE: Final = 0.3


class Door(StrEnum):
    """How an order comes in."""

    SESSION = "session"
    SQL = "sql"


@dataclass(frozen=True, slots=True)
class Order:
    """One transfer, and what must come of it."""

    key: str
    payer: UUID
    payee: UUID
    cents: int
    door: Door
    again: bool
    redelivered: bool

    @property
    def goes_through(self) -> bool:
        """Whether the payer has that much."""
        return self.cents < TOO_MUCH_CENTS

    @property
    def payload(self) -> TransferFunds:
        """What is sent."""
        return transfer_of(self.payer, self.payee, f"{self.cents // 100}.{self.cents % 100:02}")


def transfer_of(payer: UUID, payee: UUID, amount: str) -> TransferFunds:
    """Return a transfer of the one currency there is."""
    return TransferFunds.from_wire(
        {
            "from_account": str(payer),
            "to_account": str(payee),
            "amount": amount,
            "currency": CURRENCY,
        }
    )


def sign_ups(run: str) -> list[Request]:
    """Return the users whose accounts the money moves between."""
    return [
        Request(
            CreateUser.from_wire(
                {
                    "username": f"chaos-{run}-{n}",
                    "email": f"chaos-{run}-{n}@example.com",
                    "currencies": [CURRENCY],
                }
            ),
            key=f"chaos-{run}-user-{n}",
        )
        for n in range(USERS)
    ]


def orders(run: str, accounts: Sequence[UUID], count: int, seed: int) -> list[Order]:
    """Return the transfers; the same seed makes the same ones."""
    chance = random.Random(seed)  # noqa: S311 - repeatable, not secret
    made: list[Order] = []
    while len(made) < count:
        if chance.random() < CROSSING_SHARE:
            one, other = chance.sample(accounts[:HOT], 2)
            pairs = [(one, other), (other, one)]
        else:
            payer, payee = chance.sample(accounts, 2)
            pairs = [(payer, payee)]
        made += [_order(run, len(made) + n, pair, chance) for n, pair in enumerate(pairs)]
    return made[:count]


def _order(run: str, number: int, pair: tuple[UUID, UUID], chance: random.Random) -> Order:
    refused = chance.random() < REFUSED_SHARE
    return Order(
        key=f"chaos-{run}-order-{number}",
        payer=pair[0],
        payee=pair[1],
        cents=TOO_MUCH_CENTS if refused else chance.randint(1, CENTS_MAX),
        door=Door.SQL if chance.random() < SQL_SHARE else Door.SESSION,
        again=chance.random() < AGAIN_SHARE,
        redelivered=chance.random() < REDELIVERED_SHARE,
    )


def moved_cents(done: Sequence[Order]) -> Counter[UUID]:
    """Return by how much each balance must change."""
    change: Counter[UUID] = Counter()
    for order in done:
        if order.goes_through:
            change[order.payer] -= order.cents
            change[order.payee] += order.cents
    return change


@dataclass
class Doors:
    """Hands orders in, and remembers what was promised for them."""

    client: Client
    sessions: "async_sessionmaker[AsyncSession]"
    redis: "ArqRedis"
    accepted: dict[str, UUID]
    """The job's id by the order's key."""
    repeated: int = 0
    redelivered: int = 0
    refused_twins: int = 0

    async def hand_in(self, batch: Sequence[Order]) -> None:
        """Hand a batch in through its doors, some of it twice."""
        for door, offer in ((Door.SESSION, self._by_session), (Door.SQL, self._by_sql)):
            mine = [order for order in batch if order.door is door]
            for again in (False, True):
                some = [order for order in mine if order.again or not again]
                self._remember(some, await insist(partial(offer, some)))
        self.repeated += sum(order.again for order in batch)
        await self._redeliver([order for order in batch if order.redelivered])
        await self._ask_for_another(batch[0])

    async def _by_session(self, some: Sequence[Order]) -> list[UUID]:
        handles = await self.client.enqueue_many(
            [Request(order.payload, key=order.key) for order in some]
        )
        return [handle.id for handle in handles]

    async def _by_sql(self, some: Sequence[Order]) -> list[UUID]:
        candidates = [
            Candidate(order.payload.kind, order.payload.model_dump_json(), order.key)
            for order in some
        ]
        async with self.sessions() as session, session.begin():
            verdicts = await accept_many(session, candidates)
        return [verdict.id for verdict in verdicts if verdict.id is not None]

    def _remember(self, some: Sequence[Order], ids: Sequence[UUID]) -> None:
        for order, job_id in zip(some, ids, strict=True):
            if self.accepted.setdefault(order.key, job_id) != job_id:
                raise BrokenPromiseError(f"the key {order.key} became two jobs")

    async def _redeliver(self, some: Sequence[Order]) -> None:
        jobs = [
            QueuedJob(
                str(self.accepted[order.key]), order.payload.kind, payload_json(order.payload)
            )
            for order in some
        ]
        try:
            await put(self.redis, jobs)
        except (RedisError, OSError):
            return  # Redis is away, and nobody is owed a second delivery
        self.redelivered += len(jobs)

    async def _ask_for_another(self, order: Order) -> None:
        """Use a key again for another payload: that must be refused."""
        other = transfer_of(order.payer, order.payee, "0.01")
        if other == order.payload:
            return

        async def ask() -> bool:
            try:
                await self.client.enqueue(other, key=order.key)
            except KeyConflictError:
                return True
            return False

        if not await insist(ask):
            raise BrokenPromiseError(f"the key {order.key} was taken for two payloads")
        self.refused_twins += 1


class BrokenPromiseError(Exception):
    """Something was accepted that must not be, or answered otherwise than before."""
