"""The composition root: settings in, a worker's options out. Nothing else builds anything.

`arq worker.app.WorkerSettings` finds its options here; so does `python -m worker run`. They are
built when they are asked for, so that importing this module reads no environment.
"""

import asyncio
import os
import random
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from arq import Retry
from arq.connections import RedisSettings

from db.connector import UnsuitableDatabaseError
from db.engine import PUBLIC, create_engine, create_sessions
from db.errors import TRANSIENT, diagnose
from db.kinds import KindTerms
from db.migrate import (
    MigrationBusyError,
    SchemaOutdatedError,
    migrate,
    require_current,
)
from db.store import Store
from db.transaction import limit_fault
from db.webhooks import Deliveries
from jobs import _services, registry
from jobs._queue import queue_key
from jobs._services import ServiceError
from worker.errors import StartupError
from worker.execution import serializer as wire
from worker.execution.arq_adapter import EXECUTOR, WORKER, TellerWorker, arq_functions
from worker.execution.delivery import QUEUE_NAMES
from worker.execution.executor import Executor
from worker.execution.limits import Limits
from worker.execution.outbox import Outbox
from worker.execution.progress import ProgressBoard
from worker.execution.retry import full_jitter
from worker.maintenance.batches import BatchWatch
from worker.maintenance.cron import checked_schedules
from worker.maintenance.fallback import Fallback
from worker.maintenance.pauses import PauseKeeper
from worker.maintenance.quarantine import Quarantine
from worker.maintenance.relay import Relay
from worker.maintenance.runner import Duty, DutyRunner
from worker.maintenance.scheduler import Scheduler
from worker.monitoring import Health
from worker.monitoring.events import Events, log_events
from worker.monitoring.logs import configure_logs, hide_arguments
from worker.monitoring.servers import AWAY, REFUSES_JOBS, redis_trouble
from worker.monitoring.tracing import create_tracing
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from types import TracebackType

    from arq.typing import StartupShutdown
    from arq.worker import Function
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from db.execution import JobRef
    from jobs import Job
    from jobs._services import Services
    from worker.monitoring.events import Subscriber
    from worker.monitoring.state import WorkerState
    from worker.monitoring.tracing import Tracing

ENGINE = "teller_engine"
EVENTS = "teller_events"
DUTIES = "teller_duties"
FALLBACK = "teller_fallback"
HEALTH = "teller_health"
SERVICES = "teller_services"

HEALTH_CHECK_INTERVAL_S = 5

WAIT_BASE_S: Final = 0.2
WAIT_MAX_S: Final = 5.0
"""Between two looks for a database that is away when the worker starts."""


class Options:
    """A worker's options as arq reads them: every one is here, none is left to a default."""

    def __init__(
        self,
        settings: Settings,
        subscribers: "Sequence[Subscriber]" = (),
        jobs: "Mapping[str, Job] | None" = None,
    ) -> None:
        self._settings = settings
        self._subscribers = subscribers
        self._kinds = kinds = registry() if jobs is None else jobs
        check_timeouts(kinds)
        self.functions: list[Function] = arq_functions(kinds)
        slots = {
            queue_key(name, settings.queue_name): count for name, count in settings.slots.items()
        }
        # arq's stock loop serves one queue, the first.
        self.queue_name, self.max_jobs = next(iter(slots.items()))
        self.other_queues = {key: n for key, n in slots.items() if key != self.queue_name}
        self.cron_jobs = None
        self.redis_settings = redis_settings(str(settings.redis_url))
        self.redis_pool = None
        self.burst = False
        self.on_startup = self._start
        self.on_shutdown = self._stop
        self.on_job_start = None
        self.on_job_end = None
        self.after_job_end = None
        self.handle_signals = True
        self.job_completion_wait = settings.drain_grace_s
        self.job_timeout = settings.job_timeout
        self.keep_result = settings.result_kept_s
        self.keep_result_forever = False  # arq 0.28 crashes on it, and PostgreSQL keeps results
        self.poll_delay = settings.poll_delay_s
        self.queue_read_limit = max(self.max_jobs * 20, 1_000)
        self.max_tries = 1_000_000  # attempts are counted in the job's row
        self.health_check_interval = HEALTH_CHECK_INTERVAL_S
        self.health_check_key = None
        names = dict(zip(slots, settings.slots, strict=True))
        self.ctx: dict[Any, Any] = {QUEUE_NAMES: {None: names[self.queue_name], **names}}
        self.retry_jobs = True
        self.allow_abort_jobs = True
        self.max_burst_jobs = -1
        self.job_serializer = wire.serialize
        self.job_deserializer = wire.JobReader(frozenset(kinds))
        self.expires_extra_ms = 7 * 24 * 3_600_000
        self.timezone = None
        self.log_results = False  # a result may hold what no log should

    async def _start(self, ctx: dict[Any, Any]) -> None:
        """Build what the functions need, once PostgreSQL answers and has this code's schema."""
        settings = self._settings
        configure_logs(settings.log_level)
        hide_arguments()
        engine = create_engine(
            settings.database_url,
            pool_size=settings.pool_size,
            application_name=f"teller-worker {socket.gethostname()}:{os.getpid()}"[:63],
            schema=settings.database_schema,
        )
        ctx[ENGINE] = engine
        events = ctx[EVENTS] = Events(log_events, *self._subscribers)
        sessions = create_sessions(engine)
        kinds = self._kinds
        worker: TellerWorker | None = ctx.get(WORKER)
        queues = served_queues(settings, worker)
        relays = [
            Relay(
                *(sessions, ctx["redis"], settings.queue_name, events, name),
                paused_kinds=lambda: pauses.kinds,
            )
            for name in queues.values()
        ]
        # Before anything else: a worker that waits for its servers answers probes meanwhile.
        health = ctx[HEALTH] = Health(
            *(settings, sessions, events, kinds),
            is_draining=partial(_is_draining, worker),
            redis_trouble=partial(_redis_trouble, worker, relays, ctx["redis"]),
            slots_taken=partial(_slots_taken, worker, queues),
        )
        pauses = PauseKeeper(sessions, worker, queues, events, health.state)
        health.start()
        await wait_for_database(partial(_check_schema, engine, settings.database_schema), events)
        exits = ctx[SERVICES] = AsyncExitStack()
        services = await exits.enter_async_context(open_services(settings, sessions))
        tracing = create_tracing(sessions, events)
        outbox = Outbox(ctx["redis"], settings.queue_name)
        exits.push_async_callback(outbox.flush)
        limits = Limits(
            ctx["redis"],
            settings.queue_name,
            is_available=lambda: worker is None or worker.redis_available,
            workers=health.count_workers,
        )
        ctx[EXECUTOR] = Executor(
            *(engine, events),
            open_store=Store,
            services=services,
            jobs=kinds,
            limits=limits,
            is_paused=pauses.is_paused,
            error_text=settings.error_text,
            instrument=partial(_ObservedRun, health.state, tracing),
            progress_of=ProgressBoard(ctx["redis"]).of,
            send=outbox.send,
        )
        duties: list[Duty] = [
            pauses,
            limits,
            *relays,
            *(Quarantine(sessions, ctx["redis"], key, events, health.state) for key in queues),
            Scheduler(sessions, checked_schedules(kinds), events),
            BatchWatch(sessions, ctx["redis"], settings.queue_name, events),
            *health.duties,
        ]
        if worker is not None:
            fallback = Fallback(
                *(worker, sessions, events, queues),
                redis_refuses=partial(_refuses, relays),
                paused_kinds=lambda: pauses.kinds,
            )
            ctx[FALLBACK] = fallback
            worker.on_job_start = _leave_to_lessee(fallback)
            duties.append(fallback)
        ctx[DUTIES] = DutyRunner(duties, events)
        ctx[DUTIES].start()
        health.ready()
        events.emit("worker.started", concurrency=sum(settings.slots.values()))

    async def _stop(self, ctx: dict[Any, Any]) -> None:
        # A start that failed half-way has less to release.
        duties: DutyRunner | None = ctx.pop(DUTIES, None)
        if duties is not None:
            await duties.stop()
        fallback: Fallback | None = ctx.pop(FALLBACK, None)
        if fallback is not None:
            await fallback.stop()
        health: Health | None = ctx.pop(HEALTH, None)
        if health is not None:
            await health.stop()
        services: AsyncExitStack | None = ctx.pop(SERVICES, None)
        if services is not None:
            await services.aclose()
        engine: AsyncEngine | None = ctx.pop(ENGINE, None)
        if engine is not None:
            await engine.dispose()
            ctx[EVENTS].emit("worker.stopped")


def served_queues(settings: Settings, worker: TellerWorker | None) -> dict[str, str]:
    """Return the names of the queues that this process serves, by their keys in Redis.

    Args:
        settings: this process's.
        worker: our loop's; None for arq's stock loop, which serves one queue, the first.
    """
    names = {queue_key(name, settings.queue_name): name for name in settings.slots}
    return names if worker is not None else dict([next(iter(names.items()))])


def check_timeouts(kinds: "Mapping[str, Job]") -> None:
    """Check that the database's limits can follow every job's timeout.

    Raises:
        StartupError: one cannot be; the message names the job.
    """
    for kind, job in kinds.items():
        fault = limit_fault(job.policy.timeout)
        if fault is not None:
            raise StartupError(f"job {kind}: timeout={job.policy.timeout}: {fault}")


async def wait_for_database(check: "Callable[[], Awaitable[None]]", events: Events) -> None:
    """Repeat a check of the database until it succeeds, however long PostgreSQL is away.

    Raises:
        Exception: whatever the check raises that waiting cannot help: a wrong password, an
            outdated schema.
    """
    for tries in count(1):
        try:
            return await check()
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis.trouble not in TRANSIENT:
                raise
            wait_s = full_jitter(WAIT_BASE_S, WAIT_MAX_S, tries, random.random())  # noqa: S311 - jitter
            events.emit(
                "worker.waits_for_database", error=type(error).__name__, sqlstate=diagnosis.sqlstate
            )
            await asyncio.sleep(wait_s)
    raise AssertionError("unreachable: the count has no end")


def _is_draining(worker: TellerWorker | None) -> bool:
    """Return whether the worker takes no more jobs; arq's stock loop (None) does not say."""
    return worker is not None and not worker.allow_pick_jobs


def _slots_taken(worker: TellerWorker | None, queues: "Mapping[str, str]") -> dict[str, int]:
    """Return how many slots of each queue are taken, by its name; arq's stock loop does not say."""
    if worker is None:
        return {}
    return {name: worker.queues[key].taken_count for key, name in queues.items()}


def _refuses(relays: "Sequence[Relay]") -> bool:
    """Return whether Redis takes no new jobs, as far as the relays have met that."""
    return any(relay.refused for relay in relays)


async def _redis_trouble(
    worker: TellerWorker | None, relays: "Sequence[Relay]", redis: "Redis"
) -> str | None:
    """Return what is wrong with Redis: what it says itself, or what our loop and the relay met."""
    trouble = await redis_trouble(redis)
    if trouble is None and worker is not None and not worker.redis_available:
        return AWAY
    return REFUSES_JOBS if trouble is None and _refuses(relays) else trouble


def _leave_to_lessee(fallback: Fallback) -> "StartupShutdown":
    """Return the hook that puts a job off while another worker runs it from the record."""

    async def put_off_if_leased(ctx: dict[Any, Any]) -> None:
        left = await fallback.leased_elsewhere(ctx["job_id"])
        if left is not None:
            raise Retry(defer=left)

    return put_off_if_leased


async def _check_schema(engine: "AsyncEngine", schema: str) -> None:
    try:
        await require_current(engine, schema)
    except (SchemaOutdatedError, UnsuitableDatabaseError) as error:
        raise StartupError(str(error)) from error


class _ObservedRun:
    """Counts a run as running while it lasts and, where spans are collected, makes one of it.

    Not a generator: it is entered for every job.
    """

    __slots__ = ("_span", "_state")

    def __init__(
        self, state: "WorkerState", tracing: "Tracing | None", job: "JobRef", try_number: int
    ) -> None:
        self._state = state
        self._span = tracing.observe(job, try_number) if tracing else None

    async def __aenter__(self) -> None:
        if self._span is not None:
            await self._span.__aenter__()
        self._state.jobs_running += 1

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: "TracebackType | None",
    ) -> bool | None:
        self._state.jobs_running -= 1
        return None if self._span is None else await self._span.__aexit__(kind, error, where)


@asynccontextmanager
async def open_services(
    settings: Settings,
    sessions: "async_sessionmaker[AsyncSession]",
    *,
    reports_url: str | None = None,
) -> "AsyncIterator[Services]":
    """Open the jobs' services for as long as the block lasts.

    Args:
        settings: this process's.
        sessions: for what services keep in the database.
        reports_url: where reports go instead of where the settings say.

    Raises:
        StartupError: a setting is wrong.
    """
    async with AsyncExitStack() as stack:
        opening = _services.open_services(
            reports_url=reports_url or settings.reports_url,
            endpoints=Deliveries(sessions),
            private_webhooks=settings.webhook_private == "allowed",
        )
        try:
            services = await stack.enter_async_context(opening)
        except ServiceError as error:
            raise StartupError(str(error)) from error
        yield services


def terms_of(job: "Job") -> KindTerms:
    """Return on what terms the database accepts a job's kind, whichever door it comes through."""
    return KindTerms(
        payload_schema=job.payload.model_json_schema(),
        queue=job.policy.queue,
        unique_for=job.policy.unique_for,
        replaces=job.policy.replace,
        expires_after=job.policy.expires_after,
    )


async def migrate_database(
    engine: "AsyncEngine", schema: str = PUBLIC, jobs: "Mapping[str, Job] | None" = None
) -> str:
    """Run missing migrations, register kinds of job, and return the revision.

    Args:
        engine: where to.
        schema: where the tables are.
        jobs: by kind; None: all that are registered.

    Raises:
        StartupError: the database is unsuitable, or another process migrates it.
    """
    declared = registry() if jobs is None else jobs
    kinds = {kind: terms_of(job) for kind, job in declared.items()}
    try:
        return await migrate(engine, kinds, schema)
    except (UnsuitableDatabaseError, MigrationBusyError) as error:
        raise StartupError(str(error)) from error


def create_worker(
    settings: Settings,
    *,
    burst: bool = False,
    handle_signals: bool = True,
    subscribers: "Sequence[Subscriber]" = (),
    jobs: "Mapping[str, Job] | None" = None,
) -> TellerWorker:
    """Return our loop with all options set; `run()` it, or await `async_run()`.

    Args:
        settings: this process's.
        burst: work off what is queued, then end.
        handle_signals: whether SIGTERM drains it; False where the caller owns the signals.
        subscribers: called with every event, beside the log.
        jobs: by kind, those that it runs; None: all that are registered.
    """
    options = vars(Options(settings, subscribers, jobs))
    # It works without Redis as well, so it does not wait for it to begin.
    options["redis_settings"].conn_retries = 1
    chosen = {name: option for name, option in options.items() if not name.startswith("_")}
    return TellerWorker(**chosen | {"burst": burst, "handle_signals": handle_signals})


def redis_settings(url: str) -> RedisSettings:
    """Return arq's connection options for a Redis URL."""
    settings = RedisSettings.from_dsn(url)
    settings.conn_timeout = 5
    settings.conn_retries = 10
    settings.conn_retry_delay = 1
    return settings


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name == "WorkerSettings":
        return Options(load_settings())
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
