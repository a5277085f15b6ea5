"""The fleet: a row per worker process, refreshed by its heartbeat."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

SHOWN_MAX: Final = 500

BEAT = text("""
    INSERT INTO workers AS w (id, host, pid, version, kinds, state, mode, jobs_running)
    VALUES (:id, :host, :pid, :version, :kinds, :state, :mode, :jobs_running)
    ON CONFLICT (id) DO UPDATE
    SET seen_at = clock_timestamp(), state = excluded.state, mode = excluded.mode,
        jobs_running = excluded.jobs_running
""")

FORGET = text("DELETE FROM workers WHERE seen_at < clock_timestamp() - CAST(:age AS interval)")

FLEET = text("""
    SELECT id, host, pid, version, kinds, state, mode, jobs_running, started_at, seen_at,
           seen_at < clock_timestamp() - CAST(:silence AS interval) AS silent
    FROM workers ORDER BY seen_at DESC LIMIT :shown
""")


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker process tells of itself."""

    id: UUID
    host: str
    pid: int
    version: str
    kinds: list[str]
    state: str
    mode: str
    jobs_running: int


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker process as its last heartbeat told."""

    id: UUID
    host: str
    pid: int
    version: str
    kinds: list[str]
    state: str
    mode: str
    jobs_running: int
    started_at: datetime
    seen_at: datetime
    silent: bool
    """Whether it has missed so many heartbeats that it is taken for dead."""

    @property
    def works(self) -> bool:
        """Whether it takes jobs, as far as anyone can know."""
        return self.state == "running" and not self.silent


class Workers:
    """The fleet as one session sees it."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def beat(self, beat: Beat) -> None:
        """Write a process's row, or refresh it."""
        await self._session.execute(BEAT, asdict(beat))

    async def forget(self, age: timedelta) -> None:
        """Delete the rows of processes that have been silent for so long."""
        await self._session.execute(FORGET, {"age": age})

    async def fleet(self, silence: timedelta) -> list[Seen]:
        """Return the processes, newest heartbeat first.

        Args:
            silence: from which on a process that says it runs is taken for dead.
        """
        rows = await self._session.execute(FLEET, {"silence": silence, "shown": SHOWN_MAX})
        return [Seen(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's name
