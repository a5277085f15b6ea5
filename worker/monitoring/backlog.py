"""The backlog and the fleet, read from PostgreSQL now and then, and shown from memory.

Every process reads for itself, so that each can answer alone; what the queries cost is bounded.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from db.workers import Backlog, Seen, Workers, backlog
from worker.monitoring.heartbeat import SILENCE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

INTERVAL_S: Final = 5.0
INTERVAL_WITHOUT_WORKERS_S: Final = 0.5
"""Where no worker is seen, most likely this process's own first heartbeat is on its way."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What PostgreSQL answered, and when."""

    backlog: Backlog
    fleet: list[Seen]
    taken_at: float
    """In seconds of the monitor's clock."""


class BacklogMonitor:
    """A background duty that keeps the last snapshot in memory."""

    name = "backlog"
    step_timeout_s = 20.0

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        clock: "Callable[[], float]" = time.monotonic,
        on_fleet: "Callable[[Sequence[Seen]], None]" = lambda _fleet: None,
    ) -> None:
        """Watch the database behind `sessions`.

        Args:
            sessions: for the queries.
            clock: in seconds.
            on_fleet: called with the worker processes whenever they were read.
        """
        self._sessions = sessions
        self._clock = clock
        self._on_fleet = on_fleet
        self.last: Snapshot | None = None

    async def step(self) -> float:
        """Take a snapshot, and return the seconds until the next."""
        async with self._sessions() as session:
            waiting = await backlog(session)
            fleet = await Workers(session).fleet(SILENCE_MAX)
        self.last = Snapshot(waiting, fleet, self._clock())
        self._on_fleet(fleet)
        return INTERVAL_S if fleet else INTERVAL_WITHOUT_WORKERS_S

    def age_s(self) -> float | None:
        """Return how old the last snapshot is in seconds; None before the first."""
        return None if self.last is None else self._clock() - self.last.taken_at
