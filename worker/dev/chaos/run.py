"""The whole of it: open the bank, keep it busy, break everything, then take stock."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from arq.connections import ArqRedis
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import make_url

from db.dev import completed, ended_otherwise, idle_in_transaction, queued
from db.engine import create_engine, create_sessions
from db.store import Store
from jobs import Client
from worker.app import migrate_database
from worker.dev.chaos import load
from worker.dev.chaos.faults import Targets, inject
from worker.dev.chaos.fleet import Fleet, environment
from worker.dev.chaos.load import Doors, Order
from worker.dev.chaos.patience import insist
from worker.dev.chaos.plan import Fault, Kind, schedule
from worker.dev.chaos.proxy import CommitProxy
from worker.dev.chaos.summary import Summary, read_logs
from worker.execution import serializer as wire

if TYPE_CHECKING:
    from rich.console import Console
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.dev.chaos.sites import Site

BATCH: Final = 50
BACKLOG: Final = 600
"""Jobs that wait at a time: enough that a flush hurts and that no worker is ever idle."""
LOOK_EVERY_S: Final = 0.1
FAULT_WAIT_MAX_S: Final = 3.0
"""The next fault comes after this long even if no job ends: troubles come together, too."""
OPENING_MAX_S: Final = 60.0
STANDSTILL_MAX_S: Final = 90.0
SETTLE_MAX_S: Final = 30.0
IDLE_LONGER_THAN: Final = timedelta(seconds=1)
KEYS_OF_JOBS: Final = ("arq:in-progress:*", "arq:retry:*", "arq:job:*")
OWN_CONNECTIONS: Final = 6


@dataclass(frozen=True, slots=True)
class Wishes:
    """What somebody wants to be done."""

    seed: int
    jobs: int
    kinds: Sequence[Kind]
    faults: int
    processes: int
    concurrency: int


@dataclass
class Storm:
    """What goes on, and how far it is."""

    wishes: Wishes
    targets: Targets
    sessions: "async_sessionmaker[AsyncSession]"
    doors: Doors
    progress: Progress
    run: str = field(default_factory=lambda: secrets.token_hex(3))
    live: int = 0
    """Jobs that are not final, as of a moment ago."""

    @property
    def part_done(self) -> float:
        """Which part of the load has been worked off."""
        return max(0, len(self.doors.accepted) - self.live) / self.wishes.jobs

    async def count(self) -> int:
        """Count the jobs that are not final, once PostgreSQL answers."""

        async def ask() -> int:
            async with self.sessions() as session:
                return await queued(session)

        self.live = await insist(ask)
        return self.live


async def run(place: "Site", wishes: Wishes, console: "Console") -> Summary:
    """Do all of it on the given servers, and return what came of it.

    Raises:
        TimeoutError: the bank did not open.
        worker.dev.chaos.load.BrokenPromiseError: something was accepted that must not be.
    """
    started_at = time.monotonic()
    kinds = place.possible(wishes.kinds)
    async with _storm(place, wishes, console) as storm:
        accounts = await _open_bank(storm)
        orders = load.orders(storm.run, accounts, wishes.jobs, wishes.seed)
        await _rage(storm, orders, schedule(wishes.seed, kinds, wishes.faults))
        leaked = await _leaked_keys(storm)
        idle = await _idle(storm)
        fleet = storm.targets.fleet
        await fleet.ready()
        await fleet.stop()
        wrong = await _wrong_balances(storm, accounts, orders)
        missing = await _missing(storm, orders)
        async with storm.sessions() as session:
            audited = await Store(session).audit.run_in_snapshot()
        return Summary(
            seed=wishes.seed,
            orders=len(orders),
            seconds=time.monotonic() - started_at,
            injected=storm.targets.injected,
            left_out=[kind for kind in wishes.kinds if kind not in kinds],
            replies_lost=storm.targets.proxy.lost,
            workers_started=fleet.started,
            told=read_logs(fleet.logs()),
            repeated=storm.doors.repeated,
            redelivered=storm.doors.redelivered,
            refused_twins=storm.doors.refused_twins,
            live=await storm.count(),
            missing=missing,
            wrong_balances=wrong,
            idle_in_transaction=idle,
            leaked_keys=leaked,
            exit_codes=fleet.exit_codes,
            ended_by_themselves=fleet.ended_by_themselves,
            audit=audited,
        )


@asynccontextmanager
async def _storm(place: "Site", wishes: Wishes, console: "Console") -> AsyncIterator[Storm]:
    """Start the workers behind the proxy, and open what chaos itself needs."""
    async with AsyncExitStack() as exits:
        engine = create_engine(
            place.database_url, pool_size=OWN_CONNECTIONS, application_name="teller-chaos"
        )
        exits.push_async_callback(engine.dispose)
        await migrate_database(engine)
        proxy, proxied = await _proxy(place.database_url)
        exits.push_async_callback(proxy.stop)
        exits.enter_context(
            environment(
                DATABASE_URL=proxied,
                REDIS_URL=place.redis_url,
                TELLER_REPORTS_URL=(place.directory / "reports").as_uri(),
                TELLER_LOG_LEVEL="INFO",
                TELLER_HEALTH_PORT="0",  # several workers, and perhaps others on this machine
            )
        )
        fleet = Fleet(place.directory, wishes.processes, wishes.concurrency)
        exits.push_async_callback(fleet.stop)
        redis = ArqRedis.from_url(place.redis_url)
        redis.job_serializer, redis.job_deserializer = wire.serialize, wire.deserialize
        exits.push_async_callback(redis.aclose)
        sessions = create_sessions(engine)
        client = await exits.enter_async_context(Client(redis, sessions=sessions))
        progress = exits.enter_context(_progress(console))
        await fleet.start()
        yield Storm(
            wishes,
            Targets(fleet, proxy, place.redis_url, engine, place.postgres, place.valkey),
            sessions,
            Doors(client, sessions, redis, {}),
            progress,
        )


async def _proxy(database_url: str) -> tuple[CommitProxy, str]:
    url = make_url(database_url)
    proxy = CommitProxy(url.host or "127.0.0.1", url.port or 5432)
    proxied = url.set(host="127.0.0.1", port=await proxy.start())
    return proxy, proxied.render_as_string(hide_password=False)


async def _open_bank(storm: Storm) -> list[UUID]:
    """Make the accounts, and bring money in through Redis alone, as any arq client would.

    Before the first fault: what only Redis knows is as durable as that Redis, and no more.
    """
    handles = await storm.doors.client.enqueue_many(load.sign_ups(storm.run))
    async with asyncio.timeout(OPENING_MAX_S):
        await asyncio.gather(*(handle.result(OPENING_MAX_S) for handle in handles))
        async with storm.sessions() as session:
            users = await completed(session, f"chaos-{storm.run}-user-")
            world = await Store(session).ledger.world_account(load.CURRENCY)
        accounts = sorted(UUID(user.result["accounts"][load.CURRENCY]) for user in users)
        pool = storm.doors.redis
        deposits = [
            await pool.enqueue_job(
                "transfer_funds",
                load.transfer_of(world, account, load.DEPOSIT).to_wire(),
                _job_id=f"chaos-{storm.run}-deposit-{n}",
            )
            for n, account in enumerate(accounts)
        ]
        made = [deposit for deposit in deposits if deposit is not None]
        await asyncio.gather(*(deposit.result(poll_delay=LOOK_EVERY_S) for deposit in made))
    return accounts


async def _rage(storm: Storm, orders: Sequence[Order], plan: Sequence[Fault]) -> None:
    """Hand in the orders while the faults strike."""
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_watch(storm, len(orders)))
        feeding = group.create_task(_feed(storm, orders))
        striking = group.create_task(_strike(storm, plan))
        await asyncio.wait({feeding, striking})
        await _calm(storm)
        watching.cancel()


async def _watch(storm: Storm, count: int) -> None:
    bar = storm.progress.add_task("jobs", total=count)
    while True:
        await storm.count()
        storm.progress.update(bar, completed=storm.part_done * count)
        await asyncio.sleep(LOOK_EVERY_S)


async def _feed(storm: Storm, orders: Sequence[Order]) -> None:
    for start in range(0, len(orders), BATCH):
        while storm.live > BACKLOG:  # noqa: ASYNC110 - the record sends no event
            await asyncio.sleep(LOOK_EVERY_S)
        batch = orders[start : start + BATCH]
        await storm.doors.hand_in(batch)
        storm.live += len(batch)


async def _strike(storm: Storm, plan: Sequence[Fault]) -> None:
    bar = storm.progress.add_task("faults", total=len(plan))
    async with asyncio.TaskGroup() as group:
        for fault in plan:
            await _until(partial(_reached, storm, fault.at), FAULT_WAIT_MAX_S)
            group.create_task(inject(storm.targets, fault))
            storm.progress.advance(bar)


def _reached(storm: Storm, part: float) -> bool:
    return storm.part_done >= part


async def _calm(storm: Storm) -> None:
    """Let the workers finish; give up when nothing moves any more."""
    moved_at, before = time.monotonic(), await storm.count()
    while await storm.count():
        if storm.live != before:
            moved_at, before = time.monotonic(), storm.live
        elif time.monotonic() - moved_at > STANDSTILL_MAX_S:
            return
        await asyncio.sleep(LOOK_EVERY_S)


async def _leaked_keys(storm: Storm) -> list[str]:
    """Return what Redis still holds of jobs, once deliveries that were under way have ended."""
    deadline = time.monotonic() + SETTLE_MAX_S
    while left := await insist(lambda: _keys_of_jobs(storm.doors.redis)):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return left


async def _keys_of_jobs(redis: ArqRedis) -> list[str]:
    found = [key for pattern in KEYS_OF_JOBS async for key in redis.scan_iter(pattern, count=1_000)]
    found += await redis.zrange("arq:queue", 0, -1)
    return sorted(key.decode() for key in found)


async def _idle(storm: Storm) -> int:
    """Count the connections that a worker forgot in a transaction; a duty's are open briefly."""
    await asyncio.sleep(2 * IDLE_LONGER_THAN.total_seconds())
    async with storm.sessions() as session:
        return await idle_in_transaction(session, IDLE_LONGER_THAN)


async def _wrong_balances(
    storm: Storm, accounts: Sequence[UUID], orders: Sequence[Order]
) -> list[str]:
    """Compare every balance with what the orders alone make it."""
    deposit = int(load.DEPOSIT.replace(".", ""))
    moved = load.moved_cents(orders)
    async with storm.sessions() as session:
        found = await Store(session).ledger.balances(accounts)
    return [str(one) for one in accounts if found[one] != deposit + moved[one]]


async def _missing(storm: Storm, orders: Sequence[Order]) -> int:
    wanted = {
        storm.doors.accepted[order.key]: "completed" if order.goes_through else "rejected"
        for order in orders
    }
    async with storm.sessions() as session:
        return len(orders) - len(wanted) + await ended_otherwise(session, wanted)


async def _until(condition: Callable[[], bool], patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
        await asyncio.sleep(LOOK_EVERY_S / 2)


def _progress(console: "Console") -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
