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

# A job under the run's key that is none of its own: with another payload, or put off for later.
OFFER = text("""
    SELECT offered.id,
           offered.fault IN ('TL003', 'TL004')
             OR NOT offered.created AND j.state = 'queued' AND j.run_at > :fire_at AS key_taken,
           offered.fault
    FROM try_enqueue_job(:kind, CAST(:payload AS jsonb), :key, :fire_at, NULL, NULL) AS offered
    LEFT JOIN jobs j ON j.id = offered.id
""")

# Raises why not.
ACCEPT = text("""
    SELECT id FROM accept_job(:kind, CAST(:payload AS jsonb), :key, :fire_at, NULL, NULL)
""")

# The primary key is the alarm behind the row lock: a run that was made is never made again.
NOTE = text("""
    INSERT INTO occurrences (schedule, fire_at, job_id) VALUES (:schedule, :fire_at, :job_id)
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
class New:
    """One run that was made now."""

    fire_at: datetime
    job_id: UUID
    key_taken: bool
    """Whether somebody's job has its key, so that its own has none."""


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

    async def make(self, occurrences: "Sequence[Occurrence]") -> list[New]:
        """Accept a job for each run that was not made before; return those that were new.

        The job has the run's key, so that it can be found by it. Where somebody's job has that key
        already the run gets a job without one: what makes it happen once is its occurrence.

        Raises:
            DBAPIError: a job is refused: its kind is unknown, or its payload invalid.
        """
        new: list[New] = []
        for one in occurrences:
            place = {"schedule": one.schedule, "fire_at": one.fire_at}
            if await self._session.scalar(IS_MADE, place) is not None:
                continue
            job_id, key_taken = await self._accept(one)
            if await self._session.scalar(NOTE, {**place, "job_id": job_id}) is not None:
                new.append(New(one.fire_at, job_id, key_taken))
        return new

    async def _accept(self, one: Occurrence) -> tuple[UUID, bool]:
        job = {"kind": one.kind, "payload": one.payload_json, "fire_at": one.fire_at}
        offered = (await self._session.execute(OFFER, {**job, "key": one.key})).one()
        if offered.fault is None and not offered.key_taken:
            return offered.id, False
        key = None if offered.key_taken else one.key
        job_id: UUID = await self._session.scalar(ACCEPT, {**job, "key": key})
        return job_id, bool(offered.key_taken)

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
