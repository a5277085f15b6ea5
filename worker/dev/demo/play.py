"""Plays the demo: enqueues, lets a worker run, waits until every job is final, then audits."""

import asyncio
import random
import secrets
import time
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from arq import create_pool
from pydantic_core import to_json
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from db.dev import Tally, completed, tally
from db.engine import create_sessions, open_engine
from db.store import Store
from jobs import Client, Request
from jobs._wire import QueuedJob, put
from jobs.build_report import BuildReport
from worker.app import create_worker, migrate_database, redis_settings
from worker.dev.demo import scenario
from worker.dev.demo.scenario import Wallet
from worker.dev.demo.summary import Summary

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from arq import ArqRedis
    from rich.console import Console
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.settings import Settings

SEED: Final = 20260229
BATCH: Final = 500
LOOK_EVERY_S: Final = 0.1
STANDSTILL_MAX_S: Final = 60.0
"""The demo gives up when no job has finished for this long."""
DELIVERED_AGAIN: Final = 200


class StandstillError(Exception):
    """No job finishes any more."""


@dataclass
class Stage:
    """What the acts of the demo share."""

    run: str
    chance: random.Random
    sessions: "async_sessionmaker[AsyncSession]"
    client: Client
    redis: "ArqRedis"
    progress: Progress
    told: Counter[str] = field(default_factory=Counter)
    """Events of the worker, counted by name."""
    asked: int = 0
    """Requests made, duplicates included."""

    async def enqueue(self, what: str, requests: "Sequence[Request]") -> None:
        """Hand jobs over in batches, each in a transaction of its own."""
        bar = self.progress.add_task(f"enqueue {what}", total=len(requests))
        for start in range(0, len(requests), BATCH):
            batch = requests[start : start + BATCH]
            await self.client.enqueue_many(batch)
            self.progress.advance(bar, len(batch))
        self.asked += len(requests)

    async def finish(self, what: str) -> Tally:
        """Wait until every job of this run is final."""
        found = await self.count()
        bar = self.progress.add_task(f"run {what}", total=found.accepted)
        moved_at = time.monotonic()
        while found.live:
            self.progress.update(bar, completed=found.final)
            await asyncio.sleep(LOOK_EVERY_S)
            before, found = found, await self.count()
            if found.final != before.final:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > STANDSTILL_MAX_S:
                raise StandstillError(f"{found.live} jobs do not finish: see `worker jobs list`")
        self.progress.update(bar, completed=found.final)
        return found

    async def count(self) -> Tally:
        """Return how this run's jobs stand, by the record."""
        async with self.sessions() as session:
            return await tally(session, f"demo-{self.run}-")


async def play(settings: "Settings", console: "Console") -> Summary:
    """Play the whole demo on the given servers and return what came of it.

    Raises:
        StandstillError: jobs stopped finishing.
    """
    started_at = time.monotonic()
    async with open_engine(
        str(settings.database_url), pool_size=4, application_name="teller-demo"
    ) as engine:
        await migrate_database(engine)
        sessions = create_sessions(engine)
        async with (
            _worker(settings) as told,
            _pool(settings) as redis,
            Client(redis, sessions=sessions) as client,
        ):
            with _progress(console) as progress:
                chance = random.Random(SEED)  # noqa: S311 - a scenario, not a secret
                run = secrets.token_hex(3)
                stage = Stage(run, chance, sessions, client, redis, progress, told)
                return await _acts(stage, started_at)


async def _acts(stage: Stage, started_at: float) -> Summary:
    await stage.enqueue("users", scenario.sign_ups(stage.run, stage.chance))
    await stage.finish("users")
    wallets = await _wallets(stage)
    async with stage.sessions() as session:
        ledger = Store(session).ledger
        worlds = {name: await ledger.world_account(name) for name in scenario.CURRENCIES}
    await stage.enqueue("deposits", scenario.deposits(stage.run, wallets, worlds))
    await stage.finish("deposits")
    payments = scenario.payments(stage.run, wallets, stage.chance)
    await stage.enqueue("payments", payments)
    await _deliver_again(stage)
    await stage.finish("payments")
    await stage.enqueue("reports", _reports(stage.run, wallets[0]))
    final = await stage.finish("reports")
    async with stage.sessions() as session:
        audited = await Store(session).audit.run_in_snapshot()
    async with stage.sessions() as session:
        balances = await Store(session).ledger.balance_sums()
        reports = await completed(session, f"demo-{stage.run}-report-")
    return Summary(
        asked=stage.asked,
        tally=final,
        told=dict(stage.told),
        balances=balances,
        audit=audited,
        reports=[job.result["url"] for job in reports],
        seconds=time.monotonic() - started_at,
    )


async def _wallets(stage: Stage) -> list[Wallet]:
    """Return the accounts that the new users got."""
    async with stage.sessions() as session:
        users = await completed(session, f"demo-{stage.run}-user-")
    return [
        Wallet(UUID(account), currency)
        for user in users
        for currency, account in user.result["accounts"].items()
    ]


async def _deliver_again(stage: Stage) -> None:
    """Send jobs that have run already, as a queue does that forgot it was told so."""
    async with stage.sessions() as session:
        done = await completed(session, f"demo-{stage.run}-deposit-")
    again = [
        QueuedJob(str(job.id), job.kind, to_json(job.payload).decode())
        for job in done[:DELIVERED_AGAIN]
    ]
    await put(stage.redis, again)


def _reports(run: str, wallet: Wallet) -> list[Request]:
    forms = ("csv", "json", "pdf")
    wishes = [
        BuildReport.from_wire(
            {"report": "account_statement", "format": form, "account": str(wallet.account)}
        )
        for form in forms
    ] + [BuildReport.from_wire({"report": "trial_balance", "format": form}) for form in forms]
    return [Request(wish, key=f"demo-{run}-report-{n}") for n, wish in enumerate(wishes)]


@asynccontextmanager
async def _worker(settings: "Settings") -> "AsyncIterator[Counter[str]]":
    """Run a worker in this process, so that nothing is left when the process is killed."""
    told: Counter[str] = Counter()

    def count(name: str, _fields: dict[str, Any]) -> None:
        told[name] += 1

    quiet = settings.model_copy(update={"log_level": "ERROR"})
    worker = create_worker(quiet, handle_signals=False, subscribers=[count])
    running = asyncio.create_task(worker.async_run())
    try:
        yield told
    finally:
        await worker.close()
        await asyncio.wait({running})


@asynccontextmanager
async def _pool(settings: "Settings") -> "AsyncIterator[ArqRedis]":
    pool = await create_pool(redis_settings(str(settings.redis_url)))
    try:
        yield pool
    finally:
        await pool.aclose()


def _progress(console: "Console") -> Progress:
    return Progress(
        TextColumn("{task.description:<18}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
