"""Everything about this process's health, as one thing that starts and stops with it."""

import asyncio
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import RedisError

from worker.execution.arq_adapter import WORKER
from worker.monitoring.backlog import Census
from worker.monitoring.heartbeat import Heartbeat, code_version
from worker.monitoring.http.child import child_socket
from worker.monitoring.http.pages import Pages
from worker.monitoring.http.server import Server
from worker.monitoring.loop_lag import Pulse
from worker.monitoring.metrics import Metrics, Process
from worker.monitoring.state import Condition

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.execution.arq_adapter import TellerWorker
    from worker.maintenance.runner import Duty
    from worker.monitoring.events import Events
    from worker.settings import Settings


REDIS_ANSWER_MAX_S: Final = 1.5


class Health:
    """The pulse, the heartbeat, the census, the metrics, and the server that tells of them."""

    def __init__(
        self,
        settings: "Settings",
        sessions: "async_sessionmaker[AsyncSession]",
        events: "Events",
        kinds: "Iterable[str]",
        ctx: "Mapping[Any, Any]",
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            settings: this process's.
            sessions: for the heartbeat and the census.
            events: what the metrics are counted from.
            kinds: of job that this process runs.
            ctx: arq's, with the loop in it if it is ours; the stock loop tells less of itself.
        """
        kinds = list(kinds)
        worker: TellerWorker | None = ctx.get(WORKER)
        redis: Redis = ctx["redis"]

        def is_draining() -> bool:
            return worker is not None and not worker.allow_pick_jobs

        async def redis_answers() -> bool:
            return await _answers(redis) if worker is None else worker.redis_available

        self._settings = settings
        self._events = events
        self.condition = Condition(is_draining=is_draining)
        self._pulse = Pulse()
        self._census = Census(sessions)
        self._heartbeat = Heartbeat(sessions, self.condition, kinds, redis_answers)
        process = Process(settings.concurrency, self.condition, self._pulse, self._census)
        self.metrics = Metrics(kinds, code_version(), process)
        self._server: Server | None = None
        events.subscribe(self.metrics.count)

    @property
    def duties(self) -> "list[Duty]":
        """What must run beside the jobs."""
        return [self._heartbeat, self._census]

    @property
    def port(self) -> int | None:
        """Where the server is, if it is up."""
        return None if self._server is None else self._server.port

    def start(self) -> None:
        """Beat, and serve: first of all, so that a worker that waits for its servers is live."""
        self._pulse.start()
        address = self._address()
        if address is None:
            return
        pages = Pages(
            condition=self.condition,
            pulse=self._pulse,
            census=self._census,
            metrics=self.metrics,
            identity=self._identity(),
            blocked_after_s=self._settings.loop_blocked_max_s,
        )
        server = Server(pages, address, self._events)
        try:
            server.start()
        except OSError as error:
            # Jobs come first: a second worker on one machine works, and says what it lacks.
            self._events.emit("health.unavailable", address=str(address), error=error.strerror)
            return
        self._server = server

    def ready(self) -> None:
        """Tell that the worker takes jobs from now on."""
        self.condition.started = True

    async def stop(self) -> None:
        """Say goodbye to the fleet, and serve no more."""
        self.condition.stopped = True
        await self._heartbeat.stop()
        self._pulse.stop()
        if self._server is not None:
            self._server.stop()

    def _address(self) -> tuple[str, int] | Path | None:
        shared = child_socket()
        if shared is not None:
            return shared
        if self._settings.health_port == 0:
            return None
        return (self._settings.health_host, self._settings.health_port)

    def _identity(self) -> dict[str, Any]:
        return {
            "id": str(self._heartbeat.worker_id),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": code_version(),
        }


async def _answers(redis: "Redis") -> bool:
    try:
        async with asyncio.timeout(REDIS_ANSWER_MAX_S):
            await redis.ping()
    except (RedisError, OSError):
        return False
    return True
