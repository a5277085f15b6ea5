"""Schedules: up to when each is decided, and the occurrences that were made."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

RECENT_MAX: Final = 100

CLOCK = text("SELECT clock_timestamp()")

# In order of name, so that two workers that start together cannot deadlock.
WATCH = text("""
    INSERT INTO schedules AS s (name, spec, checked_until)
    SELECT name, spec, :new_from
    FROM unnest(CAST(:names AS text[]), CAST(:specs AS text[])) AS wanted (name, spec)
    ORDER BY name
    ON CONFLICT (name) DO UPDATE
    SET spec = excluded.spec, checked_until = greatest(s.checked_until, :changed_from)
    WHERE s.spec <> excluded.spec
""")

MARKS = text("SELECT name, checked_until, spec FROM schedules WHERE name = ANY(:names)")

# Another worker that holds the row is doing this very work.
HOLD = text("SELECT checked_until FROM schedules WHERE name = :name FOR UPDATE SKIP LOCKED")

# The primary key is the alarm behind the row lock: a run that was made is never made again.
MAKE = text("""
    WITH accepted AS (
      SELECT id FROM accept_job(:kind, CAST(:payload AS jsonb), :key, :fire_at, NULL, NULL)
    )
    INSERT INTO occurrences (schedule, fire_at, job_id)
    SELECT :schedule, :fire_at, id FROM accepted
    ON CONFLICT DO NOTHING
    RETURNING job_id
""")

IS_MADE = text("SELECT 1 FROM occurrences WHERE schedule = :schedule AND fire_at = :fire_at")

DECIDE = text("""
    UPDATE schedules SET checked_until = :until, missed = missed + :missed WHERE name = :name
""")

RECENT = text("""
    SELECT o.schedule, o.fire_at, o.created_at, o.job_id, j.state
    FROM occurrences o JOIN jobs j ON j.id = o.job_id
    WHERE o.schedule = :schedule
    ORDER BY o.fire_at DESC LIMIT :count
""")

SUMMARIES = text("SELECT name, spec, checked_until, missed FROM schedules ORDER BY name")


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One run of a schedule, and the job that it becomes."""

    schedule: str
    fire_at: datetime
    kind: str
    payload_json: str
    key: str


@dataclass(frozen=True, slots=True)
class Made:
    """One run that was made, and what became of its job."""

    schedule: str
    fire_at: datetime
    created_at: datetime
    job_id: UUID
    state: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What the database knows of one schedule."""

    name: str
    spec: str
    checked_until: datetime
    missed: int


class Schedules:
    """The schedules as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def clock(self) -> datetime:
        """Return the database's time: the one clock that all workers share."""
        now: datetime = await self._session.scalar(CLOCK)
        return now

    async def marks(self, names: "Sequence[str]") -> dict[str, tuple[datetime, str]]:
        """Return up to when each schedule is decided, and its timetable."""
        rows = await self._session.execute(MARKS, {"names": list(names)})
        return {row.name: (row.checked_until, row.spec) for row in rows}

    async def watch(
        self, specs: "Mapping[str, str]", *, new_from: datetime, changed_from: datetime
    ) -> None:
        """Begin the schedules that are new, and those whose timetable has changed.

        Args:
            specs: the timetable of each, by name.
            new_from: a new one has no runs before this.
            changed_from: a changed one has no more runs before this.
        """
        await self._session.execute(
            WATCH,
            {
                "names": list(specs),
                "specs": list(specs.values()),
                "new_from": new_from,
                "changed_from": changed_from,
            },
        )

    async def hold(self, name: str) -> datetime | None:
        """Lock a schedule and return its mark; None when another worker holds it."""
        mark: datetime | None = await self._session.scalar(HOLD, {"name": name})
        return mark

    async def make(self, occurrences: "Sequence[Occurrence]") -> list[tuple[datetime, UUID]]:
        """Accept a job for each run that was not made before; return those that were new."""
        made: list[tuple[datetime, UUID]] = []
        for one in occurrences:
            place = {"schedule": one.schedule, "fire_at": one.fire_at}
            if await self._session.scalar(IS_MADE, place) is not None:
                continue
            job = {"kind": one.kind, "payload": one.payload_json, "key": one.key}
            job_id = await self._session.scalar(MAKE, {**place, **job})
            if job_id is not None:
                made.append((one.fire_at, job_id))
        return made

    async def decide(self, name: str, until: datetime, missed: int) -> None:
        """Move a schedule's mark, and count the runs that were dropped."""
        await self._session.execute(DECIDE, {"name": name, "until": until, "missed": missed})

    async def recent(self, schedule: str, count: int) -> list[Made]:
        """Return the last runs of a schedule, newest first."""
        rows = await self._session.execute(
            RECENT, {"schedule": schedule, "count": min(count, RECENT_MAX)}
        )
        return [Made(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's name

    async def summaries(self) -> dict[str, Summary]:
        """Return what is known of every schedule, also those that no code declares any more."""
        rows = await self._session.execute(SUMMARIES)
        return {row.name: Summary(**row._mapping) for row in rows}  # noqa: SLF001 - SQLAlchemy's name
