"""When a schedule fires: the instants in UTC of an interval, or of a cron expression in its zone.

`cronsim` parses the cron expression and yields local times, as if no clock ever changed. What a
change of the clocks does to a local time is decided here, in a few lines that a property test
compares with every zone of the tz database. cronsim's own walk through aware times fails that test:
it loses runs where clocks change by half an hour (Caracas 2007, Lord Howe every year), and within a
repeated hour it yields times that have passed.
"""

import heapq
from bisect import bisect_left
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from jobs import Cron, Every
from worker.errors import StartupError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from zoneinfo import ZoneInfo

    from jobs import Job, Schedule

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CLOCK_CHANGE_MAX: Final = timedelta(hours=25)
"""No zone has ever moved its clocks further at once: across the date line."""


class ScheduleError(StartupError):
    """A schedule that cannot run: the message names it and says why."""


def instants(when: Cron | Every, after: datetime) -> "Iterator[datetime]":
    """Yield the times after `after`, in UTC, each later than the one before; most have no end."""
    if isinstance(when, Every):
        return _interval_instants(when, after)
    return _cron_instants(when, after)


def checked_schedules(kinds: "Mapping[str, Job]") -> "tuple[tuple[Job, Schedule], ...]":
    """Return every schedule with its job, after checking that it can run.

    Raises:
        ScheduleError: one cannot run, or two share a name.
    """
    found: dict[str, tuple[Job, Schedule]] = {}
    for job in kinds.values():
        for schedule in job.schedules:
            if schedule.name in found:
                raise ScheduleError(f"two schedules are called {schedule.name!r}: rename one")
            _check(job, schedule)
            found[schedule.name] = (job, schedule)
    return tuple(found.values())


def _check(job: "Job", schedule: "Schedule") -> None:
    try:
        first = next(instants(schedule.when, datetime.now(UTC)), None)
    except CronSimError as error:
        raise ScheduleError(f"{schedule.name}: {schedule.when}: {error}") from None
    except (ZoneInfoNotFoundError, ValueError):
        raise ScheduleError(
            f"{schedule.name}: no time zone {schedule.when}; use an IANA name like Europe/Berlin"
        ) from None
    if first is None:
        raise ScheduleError(f"{schedule.name}: {schedule.when} never comes")
    payload = schedule.payload_at(first)
    if not isinstance(payload, job.payload):
        raise ScheduleError(
            f"{schedule.name}: its payload is a {type(payload).__name__}, "
            f"but its job takes a {job.payload.__name__}"
        )


def _interval_instants(every: Every, after: datetime) -> "Iterator[datetime]":
    number = (after - EPOCH) // every.interval + 1
    while True:
        yield EPOCH + number * every.interval
        number += 1


def _cron_instants(cron: Cron, after: datetime) -> "Iterator[datetime]":
    zone = cron.zone()
    start = _local(after, zone)
    if _clocks_change_near(after, zone):
        start -= CLOCK_CHANGE_MAX
    times: Iterator[datetime]
    if _follows_real_time(cron):
        times = heapq.merge(
            _shown_instants(_local_times(cron, start), zone, fold=0),
            _shown_instants(_local_times(cron, start), zone, fold=1),
        )
    else:
        times = (_first_instant(local, zone) for local in _local_times(cron, start))
    last = after
    for instant in times:
        if instant > last:
            last = instant
            yield instant


def _follows_real_time(cron: Cron) -> bool:
    """Return whether an expression means "every so often", and not "at a time of day".

    The first goes by real time and the second by the clock on the wall: Debian's cron does so too.
    """
    minute, hour = cron.expression.split()[:2]
    return minute.startswith("*") or hour.startswith("*")


def _local_times(cron: Cron, start: datetime) -> "Iterator[datetime]":
    # cronsim begins after its start, which may itself be a match.
    return iter(CronSim(cron.expression, start - timedelta(seconds=1)))


def _shown_instants(
    local_times: "Iterator[datetime]", zone: "ZoneInfo", *, fold: int
) -> "Iterator[datetime]":
    """Yield the instants at which a clock on the wall shows these times; one in a gap has none."""
    for local in local_times:
        instant = local.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if _local(instant, zone) == local:
            yield instant


def _first_instant(local: datetime, zone: "ZoneInfo") -> datetime:
    """Return the one instant of a time of day: the first of two, or the end of its gap."""
    instant = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _local(instant, zone) == local:
        return instant
    # In a gap. By the offset after it, the time is before the change; by the one before, after it.
    earlier = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    seconds = range(int((instant - earlier).total_seconds()) + 1)
    changed = instant.astimezone(zone).utcoffset()
    step = bisect_left(
        seconds,
        True,  # noqa: FBT003 - the first second with the new offset
        key=lambda s: (earlier + timedelta(seconds=s)).astimezone(zone).utcoffset() == changed,
    )
    return earlier + timedelta(seconds=step)


def _local(instant: datetime, zone: "ZoneInfo") -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _clocks_change_near(instant: datetime, zone: "ZoneInfo") -> bool:
    before = (instant - CLOCK_CHANGE_MAX).astimezone(zone).utcoffset()
    after = (instant + CLOCK_CHANGE_MAX).astimezone(zone).utcoffset()
    return before != after


def upcoming(schedule: "Schedule", after: datetime, count: int) -> list[datetime]:
    """Return the next `count` times at which a schedule fires."""
    return list(islice(instants(schedule.when, after), count))
