"""What the demo and chaos give the workers to do: users with accounts, deposits and transfers.

Requests are values that follow from a seed. A prefix, new in every run, makes their names and keys
new, so that the same database can be used again. What must come of each transfer is known when it
is made: it goes through, or the bank must refuse it.
"""

import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final
from uuid import UUID

from arq.connections import ArqRedis
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from db.bank.money import iso_exponent
from db.dev import completed
from db.engine import create_sessions, open_engine
from db.store import Store
from jobs import Client, Request
from jobs.transfer_funds import TransferFunds
from worker.app import migrate_database
from worker.execution.serializer import deserialize, serialize

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from jobs import Job

TOO_MUCH_CENTS: Final = 9_999_999_999
"""More than any account has."""
LOOK_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Wallet:
    """One account that money moves between."""

    account: UUID
    currency: str


@dataclass(frozen=True, slots=True)
class Mix:
    """How transfers are mixed; a share is a part of 1."""

    cents_max: int
    crossing_share: float
    """A pays B while B pays A: that can deadlock."""
    crossing_accounts: int
    """How few accounts of a currency those are between."""
    refused_share: float
    """Of more than any account has."""
    repeated_share: float
    """Enqueued a second time with their key, as after a lost answer."""


@dataclass(frozen=True, slots=True)
class Order:
    """One transfer, and what must come of it."""

    key: str
    payer: Wallet
    payee: Wallet
    cents: int
    repeated: bool

    @property
    def goes_through(self) -> bool:
        """Whether the payer has that much."""
        return self.cents < TOO_MUCH_CENTS

    @property
    def request(self) -> Request:
        """What is enqueued."""
        return Request(transfer(self.payer.account, self.payee, self.cents), key=self.key)


@dataclass(frozen=True, slots=True)
class Connections:
    """One's own connections to both servers."""

    engine: "AsyncEngine"
    sessions: "async_sessionmaker[AsyncSession]"
    redis: ArqRedis
    client: Client


class StandstillTimer:
    """Notices that a count has not changed for too long."""

    def __init__(self, standstill_max_s: float) -> None:
        self._max_s = standstill_max_s
        self._count: int | None = None
        self._changed_at = time.monotonic()

    def has_expired(self, count: int) -> bool:
        """Note the count, and return whether it has been the same for too long."""
        if count != self._count:
            self._count, self._changed_at = count, time.monotonic()
        return time.monotonic() - self._changed_at > self._max_s


@asynccontextmanager
async def connect(
    database_url: str,
    redis_url: str,
    *,
    pool_size: int,
    application_name: str,
    jobs: "Mapping[str, Job] | None" = None,
) -> AsyncIterator[Connections]:
    """Connect to both servers for as long as the block lasts.

    The schema is up to date then, and the kinds of `jobs` (None: all) are accepted.
    """
    async with open_engine(
        database_url, pool_size=pool_size, application_name=application_name
    ) as engine:
        await migrate_database(engine, jobs=jobs)
        redis = ArqRedis.from_url(redis_url)
        redis.job_serializer, redis.job_deserializer = serialize, deserialize
        sessions = create_sessions(engine)
        async with redis, Client(redis, sessions=sessions) as client:
            yield Connections(engine, sessions, redis, client)


def progress_bars(console: "Console") -> Progress:
    """Return a place for bars that show how many of how many are done, and in what time."""
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def transfer(payer: UUID, payee: Wallet, cents: int) -> TransferFunds:
    """Return a transfer; in a currency without cents, of as many whole units."""
    digits = iso_exponent(payee.currency) or 0
    minor = max(1, cents * 10**digits // 100)
    return TransferFunds.from_wire(
        {
            "from_account": str(payer),
            "to_account": str(payee.account),
            "amount": f"{Decimal(minor).scaleb(-digits):f}",
            "currency": payee.currency,
        }
    )


async def wallets(session: "AsyncSession", prefix: str) -> list[Wallet]:
    """Return the accounts that users got whose jobs' keys begin with `prefix`."""
    return [
        Wallet(UUID(account), currency)
        for user in await completed(session, prefix)
        for currency, account in user.result["accounts"].items()
    ]


async def deposits(
    session: "AsyncSession", prefix: str, payees: Sequence[Wallet], cents: int
) -> list[Request]:
    """Return the money that comes into each account from outside the bank."""
    ledger = Store(session).ledger
    currencies = {payee.currency for payee in payees}
    worlds = {currency: await ledger.world_account(currency) for currency in currencies}
    return [
        Request(transfer(worlds[payee.currency], payee, cents), key=f"{prefix}{n}")
        for n, payee in enumerate(payees)
    ]


def orders(
    prefix: str, accounts: Sequence[Wallet], count: int, mix: Mix, chance: random.Random
) -> list[Order]:
    """Return transfers between accounts; the same chance makes the same ones."""
    by_currency: dict[str, list[Wallet]] = {}
    for wallet in accounts:
        by_currency.setdefault(wallet.currency, []).append(wallet)
    made: list[Order] = []
    while len(made) < count:
        pairs = _pairs(by_currency[chance.choice(sorted(by_currency))], mix, chance)
        for payer, payee in pairs:
            made.append(_order(f"{prefix}{len(made)}", payer, payee, mix, chance))
    return made[:count]


def _pairs(
    accounts: Sequence[Wallet], mix: Mix, chance: random.Random
) -> list[tuple[Wallet, Wallet]]:
    if chance.random() < mix.crossing_share:
        one, other = chance.sample(accounts[: mix.crossing_accounts], 2)
        return [(one, other), (other, one)]
    payer, payee = chance.sample(accounts, 2)
    return [(payer, payee)]


def _order(key: str, payer: Wallet, payee: Wallet, mix: Mix, chance: random.Random) -> Order:
    is_refused = chance.random() < mix.refused_share
    return Order(
        key=key,
        payer=payer,
        payee=payee,
        cents=TOO_MUCH_CENTS if is_refused else chance.randint(1, mix.cents_max),
        repeated=chance.random() < mix.repeated_share,
    )
