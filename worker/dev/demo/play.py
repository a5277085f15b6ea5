"""Plays the demo: enqueues, lets a worker run, waits until every job is final, then audits."""

import asyncio
import random
import secrets
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from db.dev import Tally, completed, tally
from db.store import Store
from jobs import Request
from jobs._wire import QueuedJob, put
from jobs.build_report import BuildReport
from jobs.create_user import CreateUser
from worker.app import create_worker
from worker.dev import workload
from worker.dev.demo.pay_day import pay_day
from worker.dev.demo.summary import Summary
from worker.dev.workload import LOOK_EVERY_S, Connections, Mix, StandstillTimer, Wallet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from rich.console import Console
    from rich.progress import Progress

    from worker.settings import Settings

SEED: Final = 20260229
BATCH: Final = 500
STANDSTILL_MAX_S: Final = 60.0
"""The demo gives up when no job has finished for this long."""

USERS: Final = 240
TWINS: Final = 20
"""Users who ask for a name that is taken, in another case or Unicode form."""
BAD_ADDRESSES: Final = 10
CURRENCIES: Final = ("EUR", "USD", "JPY")
DEPOSIT_CENTS: Final = 100_000
PAYMENTS: Final = 5_000
MIX: Final = Mix(
    cents_max=6_000,
    crossing_share=0.07,
    crossing_accounts=12,
    refused_share=0.05,
    repeated_share=0.06,
)
DELIVERED_AGAIN: Final = 200

FIRST_NAMES: Final = (
    "amélie", "björn", "chiara", "dmitri", "eleni", "farah", "günther", "hana", "ines", "joão",
    "katarzyna", "łukasz", "mei", "noor", "oğuz", "priya", "quentin", "rosa", "søren", "théo",
    "ursula", "václav", "wanjiru", "ximena", "yuki", "zoë", "straße", "ådne", "ñusta", "ælfred",
)  # fmt: skip


class StandstillError(Exception):
    """No job finishes any more."""


@dataclass
class Stage:
    """What the acts of the demo share."""

    run: str
    chance: random.Random
    connections: Connections
    progress: "Progress"
    events: Counter[str]
    """The worker's events, counted by name."""
    requests: int = field(default=0, init=False)
    """Requests made, the repeated ones included."""

    def prefix(self, what: str = "") -> str:
        """Return what the keys of this run's jobs begin with."""
        return f"demo-{self.run}-{what}"

    async def run_jobs(self, what: str, requests: "Sequence[Request]") -> Tally:
        """Enqueue jobs and wait for their end."""
        await self.enqueue(what, requests)
        return await self.finish(what)

    async def enqueue(self, what: str, requests: "Sequence[Request]") -> None:
        """Enqueue jobs in batches, each in a transaction of its own."""
        bar = self.progress.add_task(f"enqueue {what}", total=len(requests))
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            await self.connections.client.enqueue_many(batch)
            self.progress.advance(bar, len(batch))
        self.requests += len(requests)

    async def finish(self, what: str) -> Tally:
        """Wait until every job of this run is final."""
        bar = self.progress.add_task(f"run {what}", total=(await self._count()).accepted)
        timer = StandstillTimer(STANDSTILL_MAX_S)
        while (found := await self._count()).live:
            self.progress.update(bar, completed=found.final)
            if timer.has_expired(found.final):
                raise StandstillError(f"{found.live} jobs do not finish: see `worker jobs list`")
            await asyncio.sleep(LOOK_EVERY_S)
        self.progress.update(bar, completed=found.final)
        return found

    async def _count(self) -> Tally:
        async with self.connections.sessions() as session:
            return await tally(session, self.prefix())


async def play(settings: "Settings", console: "Console") -> Summary:
    """Play the whole demo on the given servers and return what came of it.

    Raises:
        StandstillError: jobs stopped finishing.
    """
    started_at = time.monotonic()
    urls = settings.database_url, str(settings.redis_url)
    async with (
        workload.connect(*urls, pool_size=4, application_name="teller-demo") as connections,
        _worker(settings) as events,
    ):
        with workload.progress_bars(console) as progress:
            chance = random.Random(SEED)  # noqa: S311 - a scenario, not a secret
            stage = Stage(secrets.token_hex(3), chance, connections, progress, events)
            return await _acts(stage, started_at)


async def _acts(stage: Stage, started_at: float) -> Summary:
    sessions = stage.connections.sessions
    await stage.run_jobs("users", _sign_ups(stage.run, stage.chance))
    async with sessions() as session:
        wallets = await workload.wallets(session, stage.prefix("user-"))
        deposits = await workload.deposits(
            session, stage.prefix("deposit-"), wallets, DEPOSIT_CENTS
        )
    await stage.run_jobs("deposits", deposits)
    await stage.enqueue("payments", _payments(stage, wallets))
    await _deliver_again(stage)
    await stage.finish("payments")
    paid = await pay_day(stage.connections, stage.prefix(), wallets)
    final = await stage.run_jobs("reports", _reports(stage.prefix("report-"), wallets[0]))
    async with sessions() as session:
        audited = await Store(session).audit.run_in_snapshot()
    async with sessions() as session:
        balances = await Store(session).ledger.balance_sums()
        reports = await completed(session, stage.prefix("report-"))
    return Summary(
        requests=stage.requests,
        tally=final,
        events=dict(stage.events),
        balances=balances,
        audit=audited,
        pay_day=paid,
        reports=[job.result["url"] for job in reports],
        seconds=time.monotonic() - started_at,
    )


def _sign_ups(run: str, chance: random.Random) -> list[Request]:
    """Return the users, some of whom want what they cannot have."""
    names = [f"{FIRST_NAMES[n % len(FIRST_NAMES)]}-{n}-{run}" for n in range(USERS)]
    twins = [name.upper() for name in chance.sample(names, TWINS)]
    wanted = [
        *[(name, f"user{n}.{run}@example.com") for n, name in enumerate(names)],
        *[(name, f"twin{n}.{run}@example.com") for n, name in enumerate(twins)],
        *[(f"lost-{n}-{run}", f"not-an-address-{n}") for n in range(BAD_ADDRESSES)],
    ]
    return [
        Request(
            CreateUser(username=name, email=email, currencies=_some_currencies(chance)),
            key=f"demo-{run}-user-{n}",
        )
        for n, (name, email) in enumerate(wanted)
    ]


def _some_currencies(chance: random.Random) -> tuple[str, ...]:
    """Everybody has euros."""
    return ("EUR", *chance.sample(CURRENCIES[1:], chance.randint(0, 2)))


def _payments(stage: Stage, wallets: "Sequence[Wallet]") -> list[Request]:
    """Return the transfers: most go through, some must not, some are enqueued twice."""
    orders = workload.orders(stage.prefix("payment-"), wallets, PAYMENTS, MIX, stage.chance)
    repeated = [order for order in orders if order.repeated]
    return [order.request for order in [*orders, *repeated]]


async def _deliver_again(stage: Stage) -> None:
    """Queue jobs that have run already, as a Redis does that lost their end."""
    async with stage.connections.sessions() as session:
        done = await completed(session, stage.prefix("deposit-"))
    again = [
        QueuedJob(str(job.id), job.kind, to_json(job.payload).decode())
        for job in done[:DELIVERED_AGAIN]
    ]
    await put(stage.connections.redis, again)


def _reports(prefix: str, wallet: Wallet) -> list[Request]:
    wanted = [
        {"report": "account_statement", "account": str(wallet.account)},
        {"report": "trial_balance"},
    ]
    payloads = [
        BuildReport.from_wire({**report, "format": form})
        for report in wanted
        for form in ("csv", "json", "pdf")
    ]
    return [Request(payload, key=f"{prefix}{n}") for n, payload in enumerate(payloads)]


@asynccontextmanager
async def _worker(settings: "Settings") -> "AsyncIterator[Counter[str]]":
    """Run a worker in this process, so that nothing is left when the process is killed."""
    events: Counter[str] = Counter()

    def count(name: str, _fields: dict[str, Any]) -> None:
        events[name] += 1

    quiet = settings.model_copy(update={"log_level": "ERROR", "webhook_private": "allowed"})
    worker = create_worker(quiet, handle_signals=False, subscribers=[count])
    running = asyncio.create_task(worker.async_run())
    try:
        yield events
    finally:
        await worker.close()
        await asyncio.wait({running})
