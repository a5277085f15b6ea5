"""The scheduler: turns times into jobs, each exactly once, however many workers try.

Every schedule has a row with the time up to which its runs are decided. One worker at a time locks
the row, and in one transaction enqueues the jobs, writes an occurrence `(schedule, fire_at)` for
each, and moves the time. So the row also shows what was missed while no worker ran.
"""

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from db.errors import Trouble, diagnose
from db.schedules import Occurrence, Schedules
from jobs._payload import payload_json
from worker.maintenance.cron import instants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from db.schedules import New
    from jobs import Job, Schedule
    from worker.monitoring.events import Events

ON_TIME: Final = timedelta(minutes=1)
"""A run that starts within this time of its own is not a missed one."""
MADE_MAX: Final = 100
"""Jobs of one schedule in one transaction; the rest follows at once in the next."""
MISSED_COUNTED_MAX: Final = 10_000
"""Missed runs are counted up to here: it bounds the time that counting takes."""
FAILED_PAUSE_S: Final = 5.0
PAUSE_MAX_S: Final = 15.0
"""The clock is read at least this often: clocks are changed, and machines sleep."""


@dataclass(frozen=True, slots=True)
class Due:
    """What to do about one schedule now."""

    make: tuple[datetime, ...] = ()
    """The runs to enqueue."""
    missed: int = 0
    """How many runs to drop."""
    checked_until: datetime | None = None
    """Up to when runs are decided from now on; None when there is nothing to decide."""
    more: bool = False
    """Whether more runs are due than one transaction enqueues."""


def due(schedule: "Schedule", checked_until: datetime, now: datetime) -> Due:
    """Decide which runs of `(checked_until, now]` to make, by the schedule's policy."""
    oldest = checked_until
    if schedule.window is not None:
        oldest = max(oldest, now - schedule.window)
    missed = _count(schedule, checked_until, oldest)
    if schedule.missed == "once":
        latest = _latest(schedule, oldest, now)
        missed += max(0, _count(schedule, oldest, now) - 1)
        return _decided((latest,) if latest else (), missed, now)
    if schedule.missed == "skip":
        on_time = max(oldest, now - ON_TIME)
        missed += _count(schedule, oldest, on_time)
        oldest = on_time
    make = _between(schedule, oldest, now, MADE_MAX + 1)
    if len(make) > MADE_MAX:
        return Due(make[:MADE_MAX], missed, checked_until=make[MADE_MAX - 1], more=True)
    return _decided(make, missed, now)


def _decided(make: tuple[datetime, ...], missed: int, now: datetime) -> Due:
    return Due(make, missed, now) if make or missed else Due()


def _until(schedule: "Schedule", after: datetime, until: datetime) -> "Iterator[datetime]":
    return takewhile(lambda at: at <= until, instants(schedule.when, after))


def _between(
    schedule: "Schedule", after: datetime, until: datetime, at_most: int
) -> tuple[datetime, ...]:
    return tuple(islice(_until(schedule, after, until), at_most))


def _count(schedule: "Schedule", after: datetime, until: datetime) -> int:
    return len(_between(schedule, after, until, MISSED_COUNTED_MAX)) if after < until else 0


def _latest(schedule: "Schedule", after: datetime, until: datetime) -> datetime | None:
    """Return the last time in `(after, until]`, looking back in ever longer steps."""
    reach = timedelta(hours=1)
    while True:
        start = max(after, until - reach)
        found = deque(_until(schedule, start, until), maxlen=1)
        if found or start == after:
            return found[0] if found else None
        reach *= 4


class Scheduler:
    """One process's scheduler, a background duty."""

    name = "scheduler"
    step_timeout_s = 60.0

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        schedules: "Sequence[tuple[Job, Schedule]]",
        events: "Events",
        clock: "Callable[[], datetime] | None" = None,
    ) -> None:
        """Watch schedules by a clock.

        Args:
            sessions: for the schedules' rows.
            schedules: with the job of each.
            events: where runs are reported.
            clock: for tests; by default PostgreSQL's, which all workers share.
        """
        self._sessions = sessions
        self._schedules = schedules
        self._events = events
        self._clock = clock

    async def step(self) -> float:
        """Enqueue what is due, and return the seconds until the next run of any schedule."""
        if not self._schedules:
            return PAUSE_MAX_S
        now, marks = await self._marks()
        pause_s = PAUSE_MAX_S
        for job, schedule in self._schedules:
            if due(schedule, marks[schedule.name], now).checked_until is not None:
                pause_s = min(pause_s, await self._try_to_decide(job, schedule, now))
            pause_s = min(pause_s, _seconds_until_next(schedule, now))
        return pause_s

    async def _marks(self) -> tuple[datetime, dict[str, datetime]]:
        """Return the time, and up to when each schedule is decided; a new one is up to now."""
        async with self._sessions() as session:
            schedules = Schedules(session)
            now = self._clock() if self._clock else await schedules.clock()
            specs = {schedule.name: schedule.spec() for _, schedule in self._schedules}
            marks = await schedules.marks(list(specs))
            if any(marks.get(name, (None, ""))[1] != spec for name, spec in specs.items()):
                # A changed timetable says nothing about the past, except for what is due now.
                await schedules.watch(specs, new_from=now, changed_from=now - ON_TIME)
                await session.commit()
                marks = await schedules.marks(list(specs))
        return now, {name: mark for name, (mark, _) in marks.items()}

    async def _try_to_decide(self, job: "Job", schedule: "Schedule", now: datetime) -> float:
        """Decide one schedule, and return the pause; its mistake must not delay the others."""
        try:
            more = await self._decide(job, schedule, now)
        except Exception as error:
            diagnosis = diagnose(error)
            if diagnosis.trouble is not Trouble.FAILURE:
                raise
            self._events.emit(
                "schedule.failed",
                schedule=schedule.name,
                error=type(error).__name__,
                sqlstate=diagnosis.sqlstate,
            )
            return FAILED_PAUSE_S
        return 0.0 if more else PAUSE_MAX_S

    async def _decide(self, job: "Job", schedule: "Schedule", now: datetime) -> bool:
        """Enqueue what is due of a schedule that no other worker holds; return whether more is."""
        async with self._sessions() as session:
            schedules = Schedules(session)
            mark = await schedules.hold(schedule.name)
            if mark is None:
                return False
            decision = due(schedule, mark, now)
            if decision.checked_until is None:
                return False
            made = await schedules.make(_occurrences(job, schedule, decision))
            await schedules.decide(schedule.name, decision.checked_until, decision.missed)
            await session.commit()
        for run in made:
            self._tell(job, schedule, run, now)
        if decision.missed:
            self._events.emit("schedule.missed", schedule=schedule.name, runs=decision.missed)
        return decision.more

    def _tell(self, job: "Job", schedule: "Schedule", run: "New", now: datetime) -> None:
        which = {
            "schedule": schedule.name,
            "kind": job.kind,
            "fire_at": run.fire_at.isoformat(),
            "job_id": str(run.job_id),
        }
        if run.key_taken:
            self._events.emit("schedule.key_taken", **which)
        late_s = round((now - run.fire_at).total_seconds(), 3)
        self._events.emit("schedule.made", **which, late_s=late_s)


def _occurrences(job: "Job", schedule: "Schedule", decision: Due) -> list[Occurrence]:
    return [
        Occurrence(
            schedule=schedule.name,
            fire_at=fire_at.astimezone(UTC),
            kind=job.kind,
            payload_json=payload_json(schedule.payload_at(fire_at)),
            key=schedule.key(fire_at),
        )
        for fire_at in decision.make
    ]


def _seconds_until_next(schedule: "Schedule", now: datetime) -> float:
    following = next(instants(schedule.when, now), None)
    if following is None:
        return PAUSE_MAX_S
    return max(0.0, (following - now).total_seconds())
