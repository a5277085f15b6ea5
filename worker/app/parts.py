"""What a worker's process has beside its loop: engine, executor, duties, probes."""

import os
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from arq import Retry

from db.engine import create_engine, create_sessions
from db.store import Store
from jobs._queue import queue_key
from worker.app.schema import check_schema, wait_for_database
from worker.app.services import open_services
from worker.execution.executor import Executor
from worker.execution.limits import Limits
from worker.execution.outbox import Outbox
from worker.execution.progress import ProgressBoard
from worker.maintenance.batches import BatchWatch
from worker.maintenance.cron import checked_schedules
from worker.maintenance.fallback import Fallback
from worker.maintenance.pauses import PauseKeeper
from worker.maintenance.quarantine import Quarantine
from worker.maintenance.relay import Relay
from worker.maintenance.runner import DutyRunner
from worker.maintenance.scheduler import Scheduler
from worker.monitoring import Health
from worker.monitoring.events import Events, log_events
from worker.monitoring.servers import AWAY, REFUSES_JOBS, redis_trouble
from worker.monitoring.tracing import create_tracing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from arq.typing import StartupShutdown
    from redis.asyncio import Redis

    from db.execution import JobRef
    from jobs import Job
    from jobs._services import Services
    from worker.execution.arq_adapter import TellerWorker
    from worker.maintenance.runner import Duty
    from worker.monitoring.events import Subscriber
    from worker.monitoring.state import WorkerState
    from worker.monitoring.tracing import Tracing
    from worker.settings import Settings


class Parts:
    """Builds the parts of one process in the order they need each other, and ends them backwards.

    Args:
        settings: this process's.
        jobs: by kind, those that it runs.
        worker: our loop; None where arq's stock loop runs, which has less to tell.
        redis: the loop's connection.
        subscribers: called with every event, beside the log.
    """

    def __init__(
        self,
        settings: "Settings",
        jobs: "Mapping[str, Job]",
        worker: "TellerWorker | None",
        redis: "Redis",
        subscribers: "Sequence[Subscriber]",
    ) -> None:
        self._settings = settings
        self._jobs = jobs
        self._worker = worker
        self._redis = redis
        self._queues = served_queues(settings, worker)
        self._exits = AsyncExitStack()
        self.engine = create_engine(
            settings.database_url,
            pool_size=settings.pool_size,
            application_name=f"teller-worker {socket.gethostname()}:{os.getpid()}"[:63],
            schema=settings.database_schema,
        )
        self._sessions = create_sessions(self.engine)
        self._events = Events(log_events, *subscribers)
        self._relays = [self._relay(name) for name in self._queues.values()]
        self.health = self._make_health()
        self._pauses = PauseKeeper(
            *(self._sessions, worker, self._queues, self._events, self.health.state)
        )

    async def open(self) -> Executor:
        """Start everything, once PostgreSQL answers and has this code's schema.

        Returns:
            What the jobs' functions run in.

        Raises:
            StartupError: the schema is not this code's, or a setting is wrong.
        """
        self._exits.push_async_callback(self._end)
        # Before anything else: a worker that waits for its servers answers probes meanwhile.
        self._exits.push_async_callback(self.health.stop)
        self.health.start()
        await wait_for_database(
            partial(check_schema, self.engine, self._settings.database_schema), self._events
        )
        services = await self._exits.enter_async_context(
            open_services(self._settings, self._sessions)
        )
        limits = self._limits()
        executor = self._executor(services, limits)
        duties = DutyRunner(self._duties(limits), self._events)
        self._exits.push_async_callback(duties.stop)
        duties.start()
        self.health.ready()
        self._events.emit("worker.started", concurrency=sum(self._settings.slots.values()))
        return executor

    async def close(self) -> None:
        """End what was started, the last first; a start that failed half-way has less to end."""
        await self._exits.aclose()

    async def _end(self) -> None:
        await self.engine.dispose()
        self._events.emit("worker.stopped")

    def _relay(self, queue: str) -> Relay:
        return Relay(
            *(self._sessions, self._redis, self._settings.queue_name, self._events, queue),
            paused_kinds=lambda: self._pauses.kinds,
        )

    def _make_health(self) -> Health:
        return Health(
            *(self._settings, self._sessions, self._events, self._jobs),
            is_draining=self._is_draining,
            redis_trouble=self._redis_trouble,
            slots_taken=self._slots_taken,
        )

    def _limits(self) -> Limits:
        return Limits(
            self._redis,
            self._settings.queue_name,
            is_available=lambda: self._worker is None or self._worker.redis_available,
            workers=self.health.count_workers,
        )

    def _executor(self, services: "Services", limits: Limits) -> Executor:
        outbox = Outbox(self._redis, self._settings.queue_name)
        self._exits.push_async_callback(outbox.flush)
        tracing = create_tracing(self._sessions, self._events)
        return Executor(
            *(self.engine, self._events),
            open_store=Store,
            services=services,
            jobs=self._jobs,
            limits=limits,
            is_paused=self._pauses.is_paused,
            error_text=self._settings.error_text,
            instrument=partial(_ObservedRun, self.health.state, tracing),
            progress_of=ProgressBoard(self._redis).of,
            send=outbox.send,
        )

    def _duties(self, limits: Limits) -> "list[Duty]":
        sessions, redis, events = self._sessions, self._redis, self._events
        state = self.health.state
        return [
            self._pauses,
            limits,
            *self._relays,
            *(Quarantine(sessions, redis, key, events, state) for key in self._queues),
            Scheduler(sessions, checked_schedules(self._jobs), events),
            BatchWatch(sessions, redis, self._settings.queue_name, events),
            *self.health.duties,
            *self._fallback(),
        ]

    def _fallback(self) -> "list[Duty]":
        """Let our loop run jobs from the record while Redis is away; arq's stock loop cannot."""
        if self._worker is None:
            return []
        fallback = Fallback(
            *(self._worker, self._sessions, self._events, self._queues),
            redis_refuses=self._redis_refuses,
            paused_kinds=lambda: self._pauses.kinds,
        )
        self._worker.on_job_start = _leave_to_lessee(fallback)
        self._exits.push_async_callback(fallback.stop)
        return [fallback]

    def _is_draining(self) -> bool:
        """Return whether the worker takes no more jobs; arq's stock loop does not say."""
        return self._worker is not None and not self._worker.allow_pick_jobs

    def _slots_taken(self) -> dict[str, int]:
        """Return how many slots of each queue are taken; arq's stock loop does not say."""
        if self._worker is None:
            return {}
        queues = self._worker.queues
        return {name: queues[key].taken_count for key, name in self._queues.items()}

    def _redis_refuses(self) -> bool:
        """Return whether Redis takes no new jobs, as far as the relays have met that."""
        return any(relay.refused for relay in self._relays)

    async def _redis_trouble(self) -> str | None:
        """Return what is wrong with Redis: what it says, or what our loop and the relays met."""
        trouble = await redis_trouble(self._redis)
        if trouble is None and self._worker is not None and not self._worker.redis_available:
            return AWAY
        return REFUSES_JOBS if trouble is None and self._redis_refuses() else trouble


def served_queues(settings: "Settings", worker: "TellerWorker | None") -> dict[str, str]:
    """Return the names of the queues that this process serves, by their keys in Redis.

    Args:
        settings: this process's.
        worker: our loop's; None for arq's stock loop, which serves one queue, the first.
    """
    names = {queue_key(name, settings.queue_name): name for name in settings.slots}
    return names if worker is not None else dict([next(iter(names.items()))])


def _leave_to_lessee(fallback: Fallback) -> "StartupShutdown":
    """Return the hook that puts a job off while another worker runs it from the record."""

    async def put_off_if_leased(ctx: dict[Any, Any]) -> None:
        left = await fallback.leased_elsewhere(ctx["job_id"])
        if left is not None:
            raise Retry(defer=left)

    return put_off_if_leased


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
