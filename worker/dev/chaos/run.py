"""One experiment: open the bank, keep it busy while faults strike, then compare with the plan."""

import asyncio
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import make_url

from db.dev import (
    ended_otherwise,
    idle_in_transaction,
    left_locks,
    outcomes_of,
    queued,
    spans,
)
from db.store import Store
from jobs import Request
from jobs.create_user import CreateUser
from worker.dev import workload
from worker.dev.chaos.doors import Doors, moved_cents
from worker.dev.chaos.faults import Fault, Kind, Targets, inject
from worker.dev.chaos.faults.environment import WORKERS_ROLE, make_role
from worker.dev.chaos.fleet import Fleet, environment
from worker.dev.chaos.member import JOBS
from worker.dev.chaos.pay_days import ORDERS_EACH, PayDays
from worker.dev.chaos.plan import schedule
from worker.dev.chaos.proxy import CommitProxy, Proxy
from worker.dev.chaos.recovery import Spans, deadly, deaths_max, longest_wait_s, recoveries
from worker.dev.chaos.retrying import retry_until_up
from worker.dev.chaos.summary import Summary, read_logs
from worker.dev.poison import DEEDS
from worker.dev.poison.deeds import LOCK_CLASS
from worker.dev.shop import listening
from worker.dev.workload import LOOK_EVERY_S, Connections, Mix, Order, StandstillTimer, Wallet

if TYPE_CHECKING:
    from arq.connections import ArqRedis
    from rich.console import Console
    from rich.progress import Progress
    from sqlalchemy import URL

    from db.dev import JobOutcome
    from worker.dev.chaos.sites import Site
    from worker.dev.shop import Shop

USERS: Final = 24
DEPOSIT_CENTS: Final = 100_000_000
MIX: Final = Mix(
    cents_max=300,
    crossing_share=0.2,
    crossing_accounts=4,
    refused_share=0.02,
    repeated_share=0.05,
)
BATCH: Final = 50
BACKLOG: Final = 600
"""Jobs that wait at a time: enough that a flush hurts and that no worker is ever idle."""
FAULT_WAIT_MAX_S: Final = 3.0
"""The next fault comes after this long even if no job ends: troubles come together, too."""
OPENING_MAX_S: Final = 60.0
STANDSTILL_MAX_S: Final = 120.0
LONG_RUN_JOBS: Final = 50_000
"""From so many jobs on, a frozen server stays so for longer than any time limit of a worker."""
SETTLE_MAX_S: Final = 30.0
IDLE_LONGER_THAN: Final = timedelta(seconds=1)
KEYS_OF_JOBS: Final = (
    *("arq:in-progress:*", "arq:retry:*", "arq:job:*", "arq:claims:*", "arq:unknown:*"),
    "arq:queue:quarantine",
)
OWN_CONNECTIONS: Final = 6


@dataclass(frozen=True, slots=True)
class Options:
    """What the experiment is to be."""

    seed: int
    jobs: int
    kinds: Sequence[Kind]
    faults: int
    processes: int
    concurrency: int


@dataclass
class Experiment:
    """What goes on, and how far it is."""

    options: Options
    targets: Targets
    connections: Connections
    doors: Doors
    shop: "Shop"
    """Hears of the ends of pay days."""
    progress: "Progress"
    prefix: str
    """What the keys of its jobs begin with."""
    live: int = 0
    """Jobs that are not final, as of a moment ago."""

    @property
    def part_done(self) -> float:
        """Which part of the load has been worked off."""
        return max(0, len(self.doors.accepted) - self.live) / self.options.jobs

    async def count(self) -> int:
        """Count the jobs that are not final, once PostgreSQL answers."""

        async def count() -> int:
            async with self.connections.sessions() as session:
                return await queued(session)

        self.live = await retry_until_up(count)
        return self.live


async def run(place: "Site", options: Options, console: "Console") -> Summary:
    """Do all of it on the given servers, and return what came of it.

    Raises:
        TimeoutError: the bank did not open.
        worker.dev.chaos.doors.BrokenPromiseError: something was accepted that must not be.
    """
    started_at = time.monotonic()
    kinds = [kind for kind in options.kinds if place.is_ours or not kind.needs_our_servers]
    is_long = options.jobs >= LONG_RUN_JOBS
    async with _experiment(place, options, console) as experiment:
        wallets = await _open_bank(experiment)
        chance = random.Random(options.seed)  # noqa: S311 - repeatable, not secret
        keys = f"{experiment.prefix}order-"
        orders = workload.orders(keys, wallets, options.jobs, MIX, chance)
        plan = schedule(options.seed, kinds, options.faults, is_long=is_long)
        pay_days = await _pay_days(experiment, wallets)
        await _transfer(experiment, orders, plan, pay_days)
        leaked = await _leaked_keys(experiment)
        idle, locks = await _idle(experiment), await _left_locks(experiment)
        targets, doors = experiment.targets, experiment.doors
        moved = moved_cents(orders)
        moved.update(pay_days.moved_cents)
        fleet = targets.fleet
        await fleet.ready()
        await fleet.stop()
        async with experiment.connections.sessions() as session:
            audited = await Store(session).audit.run_in_snapshot()
            poison = await outcomes_of(session, targets.poisoned)
            innocents = Spans(await spans(session, keys))
            in_record = len(await outcomes_of(session, targets.garbage))
        return Summary(
            seed=options.seed,
            orders=len(orders),
            seconds=time.monotonic() - started_at,
            left_out=[kind.name for kind in options.kinds if kind not in kinds],
            recoveries=recoveries(targets, innocents, poison),
            longest_wait_s=longest_wait_s(targets, innocents),
            replies_lost=targets.postgres_proxy.lost,
            workers_started=fleet.started,
            logged=read_logs(fleet.logs()),
            repeated=doors.repeated,
            redelivered=doors.redelivered,
            refused_twins=doors.refused_twins,
            live=await experiment.count(),
            missing=await _missing(experiment, orders),
            wrong_balances=await _wrong_balances(experiment, wallets, moved),
            pay_days=await pay_days.end(),
            poisoned=len(targets.poisoned),
            deadly=len(list(deadly(targets))),
            deaths_max=deaths_max(targets, poison),
            wrong_poison=_wrong_poison(targets, poison),
            garbage=len(targets.garbage),
            garbage_in_record=in_record,
            queue_was_lost=any(strike.kind.forgets_queue for strike in targets.strikes),
            idle_in_transaction=idle,
            left_locks=locks,
            leaked_keys=leaked,
            exit_codes=fleet.exit_codes,
            deaths=fleet.deaths,
            audit=audited,
        )


def _wrong_poison(targets: Targets, found: "Sequence[JobOutcome]") -> list[str]:
    """Return which poison did not end as it must, and how it did."""
    by_id = {outcome.id: outcome for outcome in found}
    wrong = []
    for job_id, poisoned in targets.poisoned.items():
        deed, outcome = DEEDS[poisoned.deed], by_id.get(job_id)
        if outcome is None:
            wrong.append(f"{poisoned.deed} {job_id} is lost")
        elif (outcome.state, outcome.error) != (deed.state, deed.error) and not (
            outcome.state == deed.state == "completed"
        ):
            ended = f"{outcome.state} by {outcome.error}"
            wrong.append(f"{poisoned.deed} {job_id} is {ended}, not {deed.state} by {deed.error}")
    return wrong


@asynccontextmanager
async def _experiment(
    place: "Site", options: Options, console: "Console"
) -> AsyncIterator[Experiment]:
    """Start the workers behind the proxy, and open what chaos itself needs."""
    async with AsyncExitStack() as exits:
        connections = await exits.enter_async_context(
            workload.connect(
                place.database_url,
                place.redis_url,
                pool_size=OWN_CONNECTIONS,
                application_name="teller-chaos",
                jobs=JOBS,
            )
        )
        database = make_url(place.database_url)
        if place.is_ours:
            await make_role(connections.engine)
            database = database.set(username=WORKERS_ROLE)
        redis = make_url(place.redis_url)
        postgres_proxy = CommitProxy(database.host or "127.0.0.1", database.port or 5432)
        redis_proxy = Proxy(redis.host or "127.0.0.1", redis.port or 6379)
        exits.enter_context(
            environment(
                DATABASE_URL=await _through(postgres_proxy, database, exits),
                REDIS_URL=await _through(redis_proxy, redis, exits),
                TELLER_CONCURRENCY=str(options.concurrency),
                TELLER_REPORTS_URL=(place.directory / "reports").as_uri(),
                TELLER_LOG_LEVEL="INFO",
                TELLER_WEBHOOK_PRIVATE="allowed",
                TELLER_HEALTH_PORT="0",  # several workers, and perhaps others on this machine
            )
        )
        fleet = Fleet(place.directory, options.processes)
        exits.push_async_callback(fleet.stop)
        progress = exits.enter_context(workload.progress_bars(console))
        await fleet.start()
        chance = random.Random(options.seed)  # noqa: S311 - as above
        prefix = f"chaos-{secrets.token_hex(3)}-"
        targets = Targets(
            *(fleet, postgres_proxy, redis_proxy, connections, prefix),
            postgres=place.postgres,
            valkey=place.valkey,
        )
        doors = Doors(connections, chance)
        shop = exits.enter_context(listening(is_often_busy=True))
        yield Experiment(options, targets, connections, doors, shop, progress, prefix)


async def _through(proxy: Proxy, url: "URL", exits: AsyncExitStack) -> str:
    """Start a proxy before a server, and return the URL that leads through it."""
    port = await proxy.start()
    exits.push_async_callback(proxy.stop)
    return url.set(host="127.0.0.1", port=port).render_as_string(hide_password=False)


async def _open_bank(experiment: Experiment) -> list[Wallet]:
    """Make the accounts, and bring money in through Redis alone, as any arq client would.

    Before the first fault: what only Redis knows is as durable as that Redis, and no more.
    """
    prefix, connections = experiment.prefix, experiment.connections
    handles = await connections.client.enqueue_many(_sign_ups(prefix))
    async with asyncio.timeout(OPENING_MAX_S):
        await asyncio.gather(*(handle.result(OPENING_MAX_S) for handle in handles))
        async with connections.sessions() as session:
            wallets = await workload.wallets(session, f"{prefix}user-")
            deposits = await workload.deposits(session, f"{prefix}deposit-", wallets, DEPOSIT_CENTS)
        queued = [
            await connections.redis.enqueue_job(
                deposit.payload.kind, deposit.payload.to_wire(), _job_id=deposit.key
            )
            for deposit in deposits
        ]
        await asyncio.gather(*(job.result(poll_delay=LOOK_EVERY_S) for job in queued if job))
    return wallets


def _sign_ups(prefix: str) -> list[Request]:
    names = [f"{prefix}user-{n}" for n in range(USERS)]
    return [
        Request(
            CreateUser(username=name, email=f"{name}@example.com", currencies=("EUR",)), key=name
        )
        for name in names
    ]


async def _pay_days(experiment: Experiment, wallets: Sequence[Wallet]) -> PayDays:
    """Open the pay days; the seed alone says what is ordered on them."""
    pay_days = PayDays(
        experiment.connections,
        experiment.shop,
        experiment.prefix,
        wallets,
        random.Random(experiment.options.seed),  # noqa: S311 - as above
    )
    await pay_days.open()
    return pay_days


async def _transfer(
    experiment: Experiment, orders: Sequence[Order], plan: Sequence[Fault], pay_days: PayDays
) -> None:
    """Enqueue the orders and the pay days while faults strike, and let the workers finish."""
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(_watch(experiment))
        feeding = group.create_task(_feed(experiment, orders, pay_days))
        striking = group.create_task(_strike(experiment, plan))
        await asyncio.wait({feeding, striking})
        await _finish(experiment)
        watching.cancel()


async def _watch(experiment: Experiment) -> None:
    jobs = experiment.options.jobs
    bar = experiment.progress.add_task("jobs", total=jobs)
    while True:
        await experiment.count()
        experiment.progress.update(bar, completed=experiment.part_done * jobs)
        await asyncio.sleep(LOOK_EVERY_S)


async def _feed(experiment: Experiment, orders: Sequence[Order], pay_days: PayDays) -> None:
    for start in range(0, len(orders), BATCH):
        while experiment.live > BACKLOG:  # noqa: ASYNC110 - PostgreSQL sends no event
            await asyncio.sleep(LOOK_EVERY_S)
        batch = orders[start : start + BATCH]
        await experiment.doors.enqueue(batch)
        experiment.live += len(batch)
        if start % ORDERS_EACH == 0:
            await pay_days.order()


async def _strike(experiment: Experiment, plan: Sequence[Fault]) -> None:
    bar = experiment.progress.add_task("faults", total=len(plan))
    async with asyncio.TaskGroup() as group:
        for fault in plan:
            deadline = time.monotonic() + FAULT_WAIT_MAX_S
            while experiment.part_done < fault.at and time.monotonic() < deadline:  # noqa: ASYNC110 - as above
                await asyncio.sleep(LOOK_EVERY_S)
            group.create_task(inject(experiment.targets, fault))
            experiment.progress.advance(bar)


async def _finish(experiment: Experiment) -> None:
    """Let the workers finish; give up when nothing moves any more."""
    timer = StandstillTimer(STANDSTILL_MAX_S)
    while (live := await experiment.count()) and not timer.has_expired(live):  # noqa: ASYNC110 - as above
        await asyncio.sleep(LOOK_EVERY_S)


async def _leaked_keys(experiment: Experiment) -> list[str]:
    """Return what Redis still holds of jobs, once deliveries that were under way have ended."""
    deadline = time.monotonic() + SETTLE_MAX_S
    while left := await retry_until_up(lambda: _keys_of_jobs(experiment.connections.redis)):
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(LOOK_EVERY_S)
    return left


async def _keys_of_jobs(redis: "ArqRedis") -> list[str]:
    found = [key for pattern in KEYS_OF_JOBS async for key in redis.scan_iter(pattern, count=1_000)]
    found += await redis.zrange("arq:queue", 0, -1)
    return sorted(key.decode() for key in found)


async def _idle(experiment: Experiment) -> int:
    """Count the connections that a worker forgot in a transaction; a duty's are open briefly."""
    await asyncio.sleep(2 * IDLE_LONGER_THAN.total_seconds())
    async with experiment.connections.sessions() as session:
        return await idle_in_transaction(session, IDLE_LONGER_THAN)


async def _left_locks(experiment: Experiment) -> int:
    async with experiment.connections.sessions() as session:
        return await left_locks(session, LOCK_CLASS)


async def _wrong_balances(
    experiment: Experiment, wallets: Sequence[Wallet], moved: Counter[UUID]
) -> list[str]:
    """Compare every balance with what the orders alone make it."""
    accounts = [wallet.account for wallet in wallets]
    async with experiment.connections.sessions() as session:
        found = await Store(session).ledger.balances(accounts)
    return [str(one) for one in accounts if found[one] != DEPOSIT_CENTS + moved[one]]


async def _missing(experiment: Experiment, orders: Sequence[Order]) -> int:
    wanted = {
        experiment.doors.accepted[order.key]: "completed" if order.goes_through else "rejected"
        for order in orders
    }
    async with experiment.connections.sessions() as session:
        return len(orders) - len(wanted) + await ended_otherwise(session, wanted)
