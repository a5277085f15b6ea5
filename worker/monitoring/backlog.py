"""The census: what waits in the record, and who works on it. Asked now and then, told from memory.

Every process asks for itself, so that each can answer alone; the questions are bounded.
"""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from db.backlog import Backlog, backlog
from db.workers import Seen, Workers
from worker.monitoring.heartbeat import SILENCE_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

INTERVAL_S: Final = 5.0
NOBODY_YET_S: Final = 0.5
"""Where nobody works, most likely our own first heartbeat is on its way."""


@dataclass(frozen=True, slots=True)
class Count:
    """The last answer."""

    backlog: Backlog
    fleet: list[Seen]
    taken_at: float


class Census:
    """A duty that keeps the last count in memory."""

    name = "census"

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        clock: "Callable[[], float]" = time.monotonic,
    ) -> None:
        self._sessions = sessions
        self._clock = clock
        self.last: Count | None = None

    async def step(self) -> float:
        """Count once, and return the seconds until the next count."""
        async with self._sessions() as session:
            waiting = await backlog(session)
            fleet = await Workers(session).fleet(SILENCE_MAX)
        self.last = Count(waiting, fleet, self._clock())
        return INTERVAL_S if fleet else NOBODY_YET_S

    def age_s(self) -> float | None:
        """Return how old the last count is, or None."""
        return None if self.last is None else self._clock() - self.last.taken_at
