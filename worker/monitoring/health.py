"""Everything about this process's health, as one thing that starts and stops with it."""

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.monitoring.backlog import BacklogMonitor
from worker.monitoring.heartbeat import Heartbeat, code_version
from worker.monitoring.http.child import child_socket
from worker.monitoring.http.pages import Pages
from worker.monitoring.http.server import Server
from worker.monitoring.loop_lag import LoopLag
from worker.monitoring.metrics import Metrics, Process
from worker.monitoring.state import WorkerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from db.workers import Seen
    from worker.monitoring.events import Events
    from worker.settings import Settings


class Health:
    """Heartbeat, loop lag, backlog and metrics of this process, and the server that shows them."""

    def __init__(  # noqa: PLR0913 - what it looks at, each by name
        self,
        settings: "Settings",
        sessions: "async_sessionmaker[AsyncSession]",
        events: "Events",
        kinds: "Iterable[str]",
        *,
        is_draining: "Callable[[], bool]",
        redis_trouble: "Callable[[], Awaitable[str | None]]",
        slots_taken: "Callable[[], Mapping[str, int]]" = dict,
    ) -> None:
        """Prepare; nothing runs before `start`.

        Args:
            settings: this process's.
            sessions: for the heartbeat and the backlog.
            events: what the metrics are counted from.
            kinds: of job that this process runs.
            is_draining: returns whether the worker takes no more jobs.
            redis_trouble: returns what is wrong with Redis, a word of `servers.py`, or None.
            slots_taken: returns how many slots of each queue are taken, by its name.
        """
        kinds = list(kinds)
        self._settings = settings
        self._events = events
        self.state = WorkerState(
            is_draining=is_draining, slots=settings.slots, slots_taken=slots_taken
        )
        self._loop_lag = LoopLag()
        self._backlog = BacklogMonitor(sessions, on_fleet=self._note_queues)
        self._heartbeat = Heartbeat(
            *(sessions, self.state, kinds, redis_trouble),
            events=events,
            queue_key=settings.queue_name,
            queues=list(settings.slots),
        )
        process = Process(sum(settings.slots.values()), self.state, self._loop_lag, self._backlog)
        self.metrics = Metrics(kinds, code_version(), process)
        self._server: Server | None = None
        events.subscribe(self.metrics.count)

    @property
    def duties(self) -> "tuple[Heartbeat, BacklogMonitor]":
        """What must run beside the jobs, again and again."""
        return (self._heartbeat, self._backlog)

    @property
    def port(self) -> int | None:
        """The server's TCP port; None where it does not serve."""
        return None if self._server is None else self._server.port

    def start(self) -> None:
        """Serve the pages. Call it first of all: a worker that waits for its servers is live."""
        self._loop_lag.start()
        address = self._address()
        if address is None:
            return
        pages = Pages(
            state=self.state,
            loop_lag=self._loop_lag,
            backlog=self._backlog,
            metrics=self.metrics,
            identity=self._identity(),
            blocked_after_s=self._settings.loop_blocked_max_s,
        )
        server = Server(pages, address, self._events)
        try:
            server.start()
        except OSError as error:
            # Jobs come first: a second worker on one machine, whose port is taken, runs them.
            self._events.emit("health.unavailable", address=str(address), error=error.strerror)
            return
        self._server = server

    def ready(self) -> None:
        """Note that the worker takes jobs from now on."""
        self.state.started = True

    async def stop(self) -> None:
        """Mark this worker as stopped, and close the server."""
        self.state.stopped = True
        await self._heartbeat.stop()
        self._loop_lag.stop()
        if self._server is not None:
            self._server.stop()

    def count_workers(self) -> int:
        """Return how many processes take jobs, as far as was seen last; this one at least."""
        last = self._backlog.last
        return max(1, 0 if last is None else sum(seen.works for seen in last.fleet))

    def _note_queues(self, fleet: "Sequence[Seen]") -> None:
        """Note, and report once, that workers of this database have queues of ours elsewhere."""
        own, served = self._settings.queue_name, self._settings.slots.keys()
        alike = [seen for seen in fleet if seen.works and not served.isdisjoint(seen.queues)]
        others = tuple(sorted({seen.queue_key for seen in alike} - {own}))
        if others and others != self.state.other_queues:
            self._events.emit("worker.other_queues", queue=own, others=list(others))
        self.state.other_queues = others

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
