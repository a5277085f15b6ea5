"""What all pages share: how the service is, read once a second at most, however many look.

Nobody looks: nothing is read. Whoever comes first after a second reads for all; who comes meanwhile
waits for that. Where PostgreSQL does not answer, the last answer stays, with its age and why.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from db.desk import Pace, begin_reading, pace
from db.pauses import Pause, Pauses
from db.workers import Backlog, Seen, Workers, backlog
from worker.monitoring.heartbeat import SILENCE_MAX
from worker.monitoring.servers import postgres_trouble, redis_trouble

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

FRESH_S: Final = 1.0
PACE_FRESH_S: Final = 5.0
"""The pace is read from up to 20,000 rows, so less often."""
READ_WITHIN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How the service is, as PostgreSQL and Redis answered."""

    backlog: Backlog
    fleet: list[Seen]
    pauses: list[Pause]
    pace: Pace
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class View:
    """The last snapshot, and what is wrong with the servers now."""

    last: Snapshot | None
    """None: PostgreSQL has never answered."""
    postgres_trouble: str | None = None
    redis_trouble: str | None = None

    @property
    def working(self) -> int:
        """How many worker processes take jobs."""
        return 0 if self.last is None else sum(seen.works for seen in self.last.fleet)


@dataclass
class Snapshots:
    """Reads snapshots for all who look."""

    sessions: "async_sessionmaker[AsyncSession]"
    redis: "Redis"
    clock: Callable[[], float] = time.monotonic
    reads: int = 0
    """How often the servers were asked."""
    _view: View = field(default_factory=lambda: View(None, "no_answer_yet"))
    _pace: Pace | None = None
    _read_at: float = float("-inf")
    _pace_at: float = float("-inf")
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def current(self) -> View:
        """Return a view that is a second old at most, or says why it is older."""
        async with self._turn:
            if self.clock() - self._read_at >= FRESH_S:
                self._view = await self._read()
                self._read_at = self.clock()
            return self._view

    async def _read(self) -> View:
        self.reads += 1
        trouble_of_redis = asyncio.ensure_future(redis_trouble(self.redis))
        last, trouble = self._view.last, None
        try:
            async with asyncio.timeout(READ_WITHIN_S):
                last = await self._read_postgres()
        except Exception as error:  # noqa: BLE001 - whatever it is, the page says it
            trouble = postgres_trouble(error)
        return View(last, trouble, await trouble_of_redis)

    async def _read_postgres(self) -> Snapshot:
        async with self.sessions() as session:
            await begin_reading(session)
            waiting = await backlog(session)
            fleet = await Workers(session).fleet(SILENCE_MAX)
            pauses = [one for one in await Pauses(session).read() if one.active]
            if self._pace is None or self.clock() - self._pace_at >= PACE_FRESH_S:
                self._pace, self._pace_at = await pace(session), self.clock()
        return Snapshot(waiting, fleet, pauses, self._pace, datetime.now(UTC))
