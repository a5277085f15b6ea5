"""When schedules fire, against every zone of the tz database."""

from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import Cron, Every, Payload, Schedule, job, registry
from tests.examples import examples
from worker.maintenance.cron import ScheduleError, checked_schedules, instants

ZONES = sorted(available_timezones() - {"localtime", "Factory"})
MINUTE = timedelta(minutes=1)
END = datetime(2038, 1, 1, tzinfo=UTC)
CLOCKS_KEEP_FOR = timedelta(days=5)
"""No zone puts its clocks forward and back within so few days."""


def next_clock_change(name, at):
    """Return when a zone's clocks change next, in UTC; None if they never do again."""
    zone = ZoneInfo(name)
    before = at.astimezone(zone).utcoffset()
    while at < END:
        low, at = at, at + CLOCKS_KEEP_FOR
        if at.astimezone(zone).utcoffset() != before:
            return _first_change(zone, low, at)
    return None


def _first_change(zone, low, high):
    before = low.astimezone(zone).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        if middle.astimezone(zone).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def wall(instant, zone):
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def minutes(start, end):
    count = int((end - start) / MINUTE)
    return [start + n * MINUTE for n in range(1, count + 1)]


def expected_by_real_time(hours, minute_set, zone, start, end):
    """Every real minute at which the wall shows a matching time."""
    return [
        at
        for at in minutes(start, end)
        if (local := wall(at, zone)).hour in hours and local.minute in minute_set
    ]


def expected_once(hours, minute_set, zone, start, end):
    """Each matching time of day that the calendar has: at its first instant, or after its gap."""
    shown: dict[datetime, datetime] = {}
    far = timedelta(hours=27)
    for at in minutes(start - far, end + far):
        shown.setdefault(wall(at, zone), at)
    times = sorted(shown)
    found = set()
    local = times[0]
    while local <= times[-1]:
        if local.hour in hours and local.minute in minute_set:
            # The first real minute that the wall shows at or after it.
            found.add(shown.get(local) or next(shown[t] for t in times if t > local))
        local += MINUTE
    return sorted(at for at in found if start < at <= end)


def places():
    """Return zones, each with one moment at which its clocks change."""
    moments = st.datetimes(datetime(1990, 1, 1), END.replace(tzinfo=None), timezones=st.just(UTC))  # noqa: DTZ001 - the zone comes with it
    return (
        st.tuples(st.sampled_from(ZONES), moments)
        .map(lambda drawn: (drawn[0], next_clock_change(*drawn)))
        .filter(lambda place: place[1])
    )


minute_sets = st.sampled_from(["0", "30", "5,35", "*/15", "*/20", "59", "*/7"])
hour_sets = st.sampled_from(["*", "0", "1", "2", "3", "0,1,2,3", "*/2", "23", "1-3", "*/3"])


def members(field, stop):
    if field.startswith("*"):
        return set(range(0, stop, int(field[2:] or 1) if "/" in field else 1))
    if "-" in field:
        low, high = map(int, field.split("-"))
        return set(range(low, high + 1))
    return set(map(int, field.split(",")))


@pytest.mark.examples
@settings(max_examples=examples(150), deadline=None)
@given(places(), minute_sets, hour_sets, st.integers(-300, 60))
def test_at_every_change_of_every_clock_runs_are_the_ones_that_the_wall_shows(
    place, minute, hour, start_minutes
):
    name, change = place
    zone = ZoneInfo(name)
    start = (change + start_minutes * MINUTE).replace(second=0)
    end = start + timedelta(hours=8)
    fields = members(hour, 24), members(minute, 60)
    wanted = (
        expected_by_real_time(*fields, zone, start, end)
        if "*" in (minute + hour)
        else expected_once(*fields, zone, start, end)
    )

    cron = Cron(f"{minute} {hour} * * *", name)
    made = list(takewhile(lambda at: at <= end, instants(cron, start)))

    assert made == wanted


@pytest.mark.examples
@settings(max_examples=examples(200), deadline=None)
@given(places(), minute_sets, hour_sets, st.integers(-300, 60), st.integers(1, 40))
def test_going_on_from_any_run_gives_the_same_runs(place, minute, hour, start_minutes, cut):
    name, change = place
    cron = Cron(f"{minute} {hour} * * *", name)
    start = change + start_minutes * MINUTE
    whole = list(islice(instants(cron, start), 40))

    rest = list(islice(instants(cron, whole[cut - 1]), 40 - cut))

    assert whole == sorted(set(whole))
    assert rest == whole[cut:]


@pytest.mark.parametrize(
    ("expression", "day", "runs"),
    [
        ("30 2 * * *", "2026-03-29", ["03:00+02:00"]),  # 02:30 does not exist: the gap's end
        ("30 2 * * *", "2026-10-25", ["02:30+02:00"]),  # 02:30 comes twice: the first
        (
            "*/30 2 * * *",
            "2026-10-25",
            ["02:00+02:00", "02:30+02:00", "02:00+01:00", "02:30+01:00"],
        ),
        ("*/30 2 * * *", "2026-03-29", []),
    ],
)
def test_in_berlin_a_night_of_23_or_25_hours_has_these_runs(expression, day, runs):
    zone = ZoneInfo("Europe/Berlin")
    start = datetime.fromisoformat(day).replace(tzinfo=zone)
    end = start + timedelta(days=1)

    made = takewhile(lambda at: at < end, instants(Cron(expression, zone.key), start))

    assert [
        f"{at.astimezone(zone):%H:%M}{at.astimezone(zone).isoformat()[-6:]}" for at in made
    ] == runs


@given(
    st.integers(1, 10**6),
    st.floats(0, 2**31).map(lambda at: datetime.fromtimestamp(at, UTC)),
)
def test_an_interval_has_no_beginning_that_workers_could_disagree_about(seconds, after):
    every = Every(timedelta(seconds=seconds))
    first, second = islice(instants(every, after), 2)

    assert after < first <= after + every.interval
    assert second - first == every.interval
    assert first.timestamp() % seconds == 0


class Tick(Payload):
    """Nothing."""

    kind = "tick"


class Other(Payload):
    """Another job's."""

    kind = "other"


def scheduled(*schedules):
    @job(Tick, schedules=schedules)
    async def tick(ctx, wish):
        """Do nothing."""

    return {"tick": tick}


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        ([Schedule("a", Cron("0 25 * * *"), Tick())], "Bad hour"),
        ([Schedule("a", Cron("0 2 * * *", "Europe/Bern"), Tick())], "no time zone"),
        ([Schedule("a", Cron("0 2 * * *", "../etc"), Tick())], "no time zone"),
        ([Schedule("a", Cron("0 0 30 2 *"), Tick())], "day-of-month"),
        ([Schedule("a", Cron("0 2 * * *"), Other())], "its job takes a Tick"),
        (
            [Schedule("a", Cron("0 2 * * *"), Tick()), Schedule("a", Cron("1 2 * * *"), Tick())],
            "two",
        ),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_with_its_reason(schedules, message):
    with pytest.raises(ScheduleError, match=message):
        checked_schedules(scheduled(*schedules))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cron("0 2 * *"),
        lambda: Every(timedelta(milliseconds=1)),
        lambda: Schedule("", Cron("0 2 * * *"), Tick()),
        lambda: Schedule("a", Cron("0 2 * * *"), Tick(), missed="all"),
    ],
    ids=["four fields", "too often", "no name", "everything that was ever missed"],
)
def test_a_schedule_with_a_wrong_shape_cannot_be_declared(make):
    with pytest.raises(ValueError, match=r"."):
        make()


def test_every_schedule_that_is_shipped_can_run():
    assert "purge_record" in {schedule.name for _, schedule in checked_schedules(registry())}
