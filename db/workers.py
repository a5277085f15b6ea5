"""The worker processes, and the backlog that waits for them. Cheap enough for every few seconds."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

SHOWN_MAX: Final = 500
COUNTED_MAX: Final = 100_000
"""Counts stop here: a number this large says all, and a larger one costs more to find."""
UNSENT_LOOKED_AT_MAX: Final = 10_000
"""How many of the oldest due jobs are looked at for one that was never sent."""

# A job that runs is still `queued` in its row, so the age includes what runs.
BACKLOG = text("""
    SELECT
      (SELECT count(*) FROM (
         SELECT FROM jobs WHERE state = 'queued' AND run_at <= clock_timestamp() LIMIT :counted
       ) AS due) AS runnable,
      (SELECT count(*) FROM (
         SELECT FROM jobs WHERE state = 'queued' AND run_at > clock_timestamp() LIMIT :counted
       ) AS later) AS scheduled,
      (SELECT count(*) FROM (
         SELECT FROM jobs WHERE state = 'dead' LIMIT :counted
       ) AS dead) AS dead,
      coalesce(extract(epoch FROM clock_timestamp() - (
         SELECT run_at FROM jobs WHERE state = 'queued' ORDER BY run_at, id LIMIT 1
       )), 0)::float8 AS oldest_s,
      coalesce(extract(epoch FROM clock_timestamp() - (
         SELECT min(greatest(run_at, enqueued_at)) FROM (
           SELECT run_at, enqueued_at, dispatched_at FROM jobs
           WHERE state = 'queued' AND run_at <= clock_timestamp()
           ORDER BY run_at, id LIMIT :looked_at
         ) AS due WHERE dispatched_at IS NULL
       )), 0)::float8 AS unsent_s
""")

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
    """What a worker process writes about itself."""

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
    """A worker process as of its last heartbeat."""

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
    """The worker processes as one session sees them."""

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


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, counted up to `COUNTED_MAX`."""

    runnable: int
    scheduled: int
    dead: int
    oldest_runnable_age_s: float
    relay_lag_s: float
    """How long the oldest due job has waited to be sent to Redis."""


async def backlog(session: "AsyncSession") -> Backlog:
    """Return what waits now."""
    bounds = {"counted": COUNTED_MAX, "looked_at": UNSENT_LOOKED_AT_MAX}
    row = (await session.execute(BACKLOG, bounds)).one()
    return Backlog(
        runnable=row.runnable,
        scheduled=row.scheduled,
        dead=row.dead,
        oldest_runnable_age_s=max(0.0, row.oldest_s),
        relay_lag_s=max(0.0, row.unsent_s),
    )
