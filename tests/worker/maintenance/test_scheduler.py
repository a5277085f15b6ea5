"""Runs become jobs: by policy, exactly once, in one transaction with their occurrence."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db.schedules import Schedules
from jobs import Cron, Every, Payload, Schedule, job, registry
from jobs.purge_record import PurgeRecord
from worker.maintenance.cron import instants
from worker.maintenance.scheduler import MADE_MAX, ON_TIME, PAUSE_MAX_S, Scheduler, due
from worker.monitoring.events import Events

NIGHT = datetime(2026, 3, 10, 2, 0, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)
NIGHTLY = Cron("0 2 * * *")


def nightly(missed="skip", window=None, name="nightly", when=NIGHTLY, payload=None):
    return Schedule(name, when, payload or PurgeRecord(), missed=missed, window=window)


# -- due: pure ------------------------------------------------------------------------------------


def test_a_run_that_comes_is_made_whatever_the_policy():
    for missed, window in (("skip", None), ("once", None), ("all", DAY)):
        found = due(nightly(missed, window), NIGHT - HOUR, NIGHT)

        assert (found.make, found.missed, found.checked_until) == ((NIGHT,), 0, NIGHT)


def test_before_its_time_nothing_is_decided():
    assert due(nightly(), NIGHT - HOUR, NIGHT - SECOND).checked_until is None


def test_after_three_nights_without_workers_the_policy_says_what_is_made():
    mark, morning = NIGHT - HOUR, NIGHT + 2 * DAY + 6 * HOUR
    nights = (NIGHT, NIGHT + DAY, NIGHT + 2 * DAY)

    skip = due(nightly("skip"), mark, morning)
    once = due(nightly("once"), mark, morning)
    every = due(nightly("all", timedelta(days=7)), mark, morning)
    within = due(nightly("all", timedelta(days=2)), mark, morning)

    assert (skip.make, skip.missed) == ((), 3)
    assert (once.make, once.missed) == (nights[-1:], 2)
    assert (every.make, every.missed) == (nights, 0)
    assert (within.make, within.missed) == (nights[1:], 1)


def test_once_looks_back_a_year_but_not_past_its_window():
    yearly = Cron("0 0 1 1 *")
    mark, now = datetime(2024, 6, 1, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC)

    assert due(nightly("once", when=yearly), mark, now).make == (datetime(2026, 1, 1, tzinfo=UTC),)
    assert due(nightly("once", DAY, when=yearly), mark, now).make == ()


def test_a_long_absence_is_worked_off_in_bounded_pieces():
    minutely = nightly("all", DAY, when=Every(timedelta(minutes=1)))
    mark = NIGHT - HOUR * 5
    made: list[datetime] = []
    while (found := due(minutely, mark, NIGHT)).checked_until is not None:
        assert len(found.make) <= MADE_MAX
        made += found.make
        mark = found.checked_until

    assert len(made) == len(set(made)) == 300


policies = st.sampled_from([("skip", None), ("once", None), ("once", 2 * HOUR), ("all", 3 * HOUR)])


@settings(max_examples=200, deadline=None)
@given(
    policies, st.sampled_from([60, 600, 5400, 86400]), st.lists(st.integers(1, 40_000), max_size=8)
)
def test_however_the_rounds_fall_no_run_is_made_twice_or_forgotten(policy, seconds, rests):
    missed_runs, window = policy
    schedule = nightly(missed_runs, window, when=Every(timedelta(seconds=seconds)))
    start = mark = now = NIGHT
    made: list[datetime] = []
    missed = 0
    for rest in rests:
        now += rest * SECOND
        while (found := due(schedule, mark, now)).checked_until is not None:
            assert all(mark < at <= now for at in found.make)
            made += found.make
            missed += found.missed
            mark = found.checked_until

    planned = list(_all_until(schedule, start, now))
    assert len(made) + missed == len(planned)
    assert len(set(made)) == len(made)
    assert set(made) <= set(planned)


def _all_until(schedule, start, end):
    for at in instants(schedule.when, start):
        if at > end:
            return
        yield at


# -- step: on a real database ---------------------------------------------------------------------


class Clock:
    def __init__(self, now):
        self.now = now

    def __call__(self):
        return self.now


@pytest.fixture
async def clock(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
        await session.execute(text("DELETE FROM schedules"))
    return Clock(NIGHT - HOUR)


@pytest.fixture
def emitted():
    return []


def scheduler(sessions, clock, emitted, *schedules):
    kind = registry()["purge_record"]
    events = Events(lambda name, fields: emitted.append((name, fields)))
    return Scheduler(sessions, [(kind, schedule) for schedule in schedules], events, clock)


async def occurrences(sessions, name="nightly"):
    async with sessions() as session:
        return [one.fire_at for one in await Schedules(session).recent(name, 100)][::-1]


async def jobs(sessions):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT kind, key, run_at FROM jobs ORDER BY run_at, key")
        )
        return [tuple(row) for row in rows]


async def test_a_new_schedule_begins_now_and_has_no_past(sessions, clock, emitted):
    await scheduler(sessions, clock, emitted, nightly("all", 30 * DAY)).step()

    assert await occurrences(sessions) == []


async def test_a_run_becomes_a_job_with_its_key_and_its_time(sessions, clock, emitted):
    duty = scheduler(sessions, clock, emitted, nightly())
    await duty.step()
    clock.now = NIGHT + SECOND
    await duty.step()

    assert await jobs(sessions) == [("purge_record", "nightly@2026-03-10T02:00:00Z", NIGHT)]
    assert await occurrences(sessions) == [NIGHT]
    [(name, fields)] = emitted
    assert name == "schedule.made"
    assert (fields["schedule"], fields["late_s"]) == ("nightly", 1.0)


async def test_a_step_says_how_long_to_rest(sessions, clock, emitted):
    duty = scheduler(sessions, clock, emitted, nightly())
    assert await duty.step() == PAUSE_MAX_S
    clock.now = NIGHT - 3 * SECOND
    assert await duty.step() == 3.0


async def test_twenty_workers_make_exactly_one(sessions, clock, emitted):
    duties = [scheduler(sessions, clock, emitted, nightly()) for _ in range(20)]
    await asyncio.gather(*(duty.step() for duty in duties))
    clock.now = NIGHT + SECOND
    await asyncio.gather(*(duty.step() for duty in duties))
    await asyncio.gather(*(duty.step() for duty in duties))

    assert len(await jobs(sessions)) == 1
    assert await occurrences(sessions) == [NIGHT]
    assert [name for name, _ in emitted] == ["schedule.made"]


async def test_a_crash_before_the_commit_leaves_neither_job_nor_occurrence(
    sessions, clock, emitted, monkeypatch
):
    duty = scheduler(sessions, clock, emitted, nightly())
    await duty.step()
    clock.now = NIGHT + SECOND

    async def crash(*_args):
        raise ConnectionError("the worker dies here")

    with monkeypatch.context() as patch:
        patch.setattr(Schedules, "decide", crash)
        await duty.step()
    assert (await jobs(sessions), await occurrences(sessions)) == ([], [])
    await duty.step()
    assert await occurrences(sessions) == [NIGHT]


async def test_a_night_without_workers_is_caught_up(sessions, clock, emitted):
    await scheduler(sessions, clock, emitted, nightly("all", 7 * DAY)).step()
    clock.now = NIGHT + 2 * DAY + 6 * HOUR
    await scheduler(sessions, clock, emitted, nightly("all", 7 * DAY)).step()

    assert await occurrences(sessions) == [NIGHT, NIGHT + DAY, NIGHT + 2 * DAY]


async def test_what_is_dropped_is_reported_and_counted(sessions, clock, emitted):
    duty = scheduler(sessions, clock, emitted, nightly("skip"))
    await duty.step()
    clock.now = NIGHT + 2 * DAY + 6 * HOUR
    await duty.step()
    await duty.step()

    assert emitted == [("schedule.missed", {"schedule": "nightly", "runs": 3})]
    async with sessions() as session:
        assert (await Schedules(session).summaries())["nightly"].missed == 3


async def test_a_changed_timetable_makes_no_runs_of_the_past(sessions, clock, emitted):
    await scheduler(sessions, clock, emitted, nightly("all", 7 * DAY)).step()
    clock.now = NIGHT + 5 * DAY
    hourly = nightly("all", 7 * DAY, when=Cron("0 * * * *"))
    await scheduler(sessions, clock, emitted, hourly).step()

    assert await occurrences(sessions) == [NIGHT + 5 * DAY]


async def test_old_and_new_workers_side_by_side_neither_lose_nor_double_a_run(
    sessions, clock, emitted
):
    old = scheduler(sessions, clock, emitted, nightly("all", DAY))
    new = scheduler(sessions, clock, emitted, nightly("all", DAY, when=Cron("0 2,3 * * *")))
    for seconds in range(-20, 120, 10):
        clock.now = NIGHT + seconds * SECOND
        await (old if seconds % 20 else new).step()

    assert await occurrences(sessions) == [NIGHT]
    assert len(await jobs(sessions)) == 1


async def test_a_schedule_whose_job_is_refused_does_not_hold_up_the_others(
    sessions, clock, emitted
):
    class Unknown(Payload):
        """A kind that the database does not know."""

        kind = "never_registered"

    @job(Unknown)
    async def unknown(ctx, request):
        """Do nothing."""

    duty = scheduler(sessions, clock, emitted, nightly())
    bad = (unknown, nightly(name="bad", payload=Unknown()))
    duty = Scheduler(sessions, [bad, *duty._schedules], duty._events, clock)
    await duty.step()
    clock.now = NIGHT + SECOND
    pause_s = await duty.step()

    assert await occurrences(sessions) == [NIGHT]
    assert [(name, fields["schedule"]) for name, fields in emitted] == [
        ("schedule.failed", "bad"),
        ("schedule.made", "nightly"),
    ]
    assert emitted[0][1]["sqlstate"] == "TL001"
    assert 0 < pause_s <= ON_TIME.total_seconds()


TAKEN = "nightly@2026-03-10T02:00:00Z"


@pytest.mark.parametrize(
    ("payload", "run_at"),
    [('{"batch_max": 7}', NIGHT), ("{}", NIGHT + 365 * DAY)],
    ids=["another payload", "the same payload, put off"],
)
async def test_somebodys_job_under_the_key_of_a_run_does_not_stop_the_schedule(
    sessions, clock, emitted, payload, run_at
):
    duty = scheduler(sessions, clock, emitted, nightly())
    await duty.step()
    async with sessions() as session, session.begin():
        taker = await session.scalar(
            text(
                "INSERT INTO jobs (kind, key, payload, run_at) "
                "VALUES ('purge_record', :key, CAST(:payload AS jsonb), :run_at) RETURNING id"
            ),
            {
                "key": TAKEN,
                "payload": payload if payload != "{}" else PurgeRecord().model_dump_json(),
                "run_at": run_at,
            },
        )
    for night in range(2):
        clock.now = NIGHT + night * DAY + SECOND
        await duty.step()

    assert await occurrences(sessions) == [NIGHT, NIGHT + DAY]
    assert {("purge_record", None, NIGHT), ("purge_record", TAKEN, run_at)} <= set(
        await jobs(sessions)
    )
    assert [name for name, _ in emitted] == [
        "schedule.key_taken",
        "schedule.made",
        "schedule.made",
    ]
    assert emitted[0][1]["job_id"] == emitted[1][1]["job_id"] != str(taker)


async def test_a_payload_may_depend_on_the_local_time_of_its_run(sessions, clock, emitted):
    seen = []

    def payload(at):
        seen.append(at.isoformat())
        return PurgeRecord()

    berlin = nightly(when=Cron("30 3 * * *", "Europe/Berlin"), payload=payload)
    duty = scheduler(sessions, clock, emitted, berlin)
    await duty.step()
    clock.now = NIGHT + HOUR / 2
    await duty.step()

    assert seen == ["2026-03-10T03:30:00+01:00"]


async def test_without_a_clock_of_its_own_it_goes_by_the_databases(sessions, clock, emitted):
    duty = scheduler(sessions, None, emitted, nightly(when=Every(SECOND)))
    await duty.step()
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE schedules SET checked_until = checked_until - interval '2 s'")
        )
    await duty.step()

    assert emitted[0][0] == "schedule.made"
