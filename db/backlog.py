"""The backlog: how much waits, and for how long. Cheap enough to ask every few seconds."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

COUNTED_MAX: Final = 100_000
"""Counts stop here: a number this large says all, and a larger one costs more to find."""
UNSENT_LOOKED_AT_MAX: Final = 10_000
"""How many of the oldest due jobs are looked at for one that was never sent."""

# A job that runs is still queued in the record, so the age includes what runs.
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
