"""Every process has a fresh row in `workers`, and finds out whether its servers answer."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from db.workers import Workers
from worker.monitoring.backlog import BacklogMonitor
from worker.monitoring.heartbeat import INTERVAL_S, SILENCE_MAX, Heartbeat, code_version
from worker.monitoring.state import WorkerState

KINDS = ["send_letter", "send_card"]


class Redis:
    up = True

    async def answers(self):
        return self.up


@pytest.fixture
async def sessions(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM workers"))
        await session.execute(text("DELETE FROM jobs"))
    return sessions


@pytest.fixture
def redis_state():
    return Redis()


@pytest.fixture
def state():
    return WorkerState(started=True)


@pytest.fixture
def heartbeat(sessions, state, redis_state):
    return Heartbeat(sessions, state, KINDS, redis_state.answers)


async def fleet(sessions):
    async with sessions() as session:
        return await Workers(session).fleet(SILENCE_MAX)


async def age(sessions, worker_id, by):
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE workers SET seen_at = clock_timestamp() - CAST(:by AS interval) "
                "WHERE id = :id"
            ),
            {"by": by, "id": worker_id},
        )


async def test_a_beat_is_one_row_with_version_and_kinds(heartbeat, sessions, state):
    assert await heartbeat.step() == INTERVAL_S
    state.jobs_running = 3
    await heartbeat.step()

    [seen] = await fleet(sessions)
    assert (seen.id, seen.kinds, seen.version) == (
        heartbeat.worker_id,
        ["send_card", "send_letter"],
        code_version(),
    )
    assert (seen.state, seen.mode, seen.jobs_running, seen.works) == ("running", "normal", 3, True)
    assert seen.seen_at > seen.started_at


async def test_a_beat_shows_that_it_drains_and_that_redis_does_not_answer(
    heartbeat, sessions, state, redis_state
):
    redis_state.up = False
    state.is_draining = lambda: True
    await heartbeat.step()

    [seen] = await fleet(sessions)
    assert (seen.state, seen.mode, seen.works) == ("draining", "degraded", False)


async def test_a_worker_that_stops_is_marked_as_stopped(heartbeat, sessions):
    await heartbeat.step()
    await heartbeat.stop()

    [seen] = await fleet(sessions)
    assert (seen.state, seen.works) == ("stopped", False)


async def test_a_worker_without_a_heartbeat_counts_as_dead_and_is_later_deleted(
    heartbeat, sessions, state, redis_state
):
    await heartbeat.step()
    other = Heartbeat(sessions, state, KINDS, redis_state.answers)
    await other.step()

    await age(sessions, other.worker_id, SILENCE_MAX + timedelta(seconds=1))
    await heartbeat.step()
    assert [seen.works for seen in await fleet(sessions)] == [True, False]

    await age(sessions, other.worker_id, timedelta(hours=1, seconds=1))
    await heartbeat.step()
    assert [seen.id for seen in await fleet(sessions)] == [heartbeat.worker_id]


async def test_without_postgresql_the_process_is_unready_until_it_answers_again(
    heartbeat, state, redis_state, unused_tcp_port
):
    engine = create_engine(
        f"postgresql://postgres@127.0.0.1:{unused_tcp_port}/x", pool_size=1, application_name="t"
    )
    lost = Heartbeat(create_sessions(engine), state, KINDS, redis_state.answers)
    with pytest.raises(OSError, match=r"."):
        await lost.step()
    await engine.dispose()
    assert state.reasons_unready() == ["postgresql connection"]

    await heartbeat.step()
    assert state.reasons_unready() == []


async def test_a_stop_does_not_wait_for_a_postgresql_that_is_gone(
    state, redis_state, unused_tcp_port
):
    engine = create_engine(
        f"postgresql://postgres@127.0.0.1:{unused_tcp_port}/x", pool_size=1, application_name="t"
    )
    await Heartbeat(create_sessions(engine), state, KINDS, redis_state.answers).stop()
    await engine.dispose()


async def add(sessions, state, *, due, age=timedelta(), rung=False, count=1):
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "INSERT INTO jobs (kind, payload, state, "
                "enqueued_at, run_at, dispatched_at, finished_at) "
                "SELECT 'a', '{}', :state, clock_timestamp() - CAST(:age AS interval), "
                "clock_timestamp() + CAST(:due AS interval), "
                "CASE WHEN :rung THEN clock_timestamp() END, "
                "CASE WHEN :state <> 'queued' THEN clock_timestamp() END "
                "FROM generate_series(1, :count)"
            ),
            {"state": state, "due": due, "age": age, "rung": rung, "count": count},
        )


async def backlog_of(sessions):
    monitor = BacklogMonitor(sessions)
    await monitor.step()
    assert monitor.last is not None
    return monitor.last.backlog


async def test_the_backlog_is_how_much_waits_and_for_how_long(sessions):
    minute = timedelta(minutes=1)
    await add(sessions, "queued", due=-minute, age=minute, rung=True, count=3)
    await add(sessions, "queued", due=-minute / 2, age=minute / 2)
    await add(sessions, "queued", due=minute, count=2)
    await add(sessions, "dead", due=-minute)
    await add(sessions, "completed", due=-minute)
    waiting = await backlog_of(sessions)

    assert (waiting.runnable, waiting.scheduled, waiting.dead) == (4, 2, 1)
    assert 60 <= waiting.oldest_runnable_age_s < 90
    assert 30 <= waiting.relay_lag_s < 60


async def test_where_nothing_waits_every_age_is_zero(sessions):
    await add(sessions, "queued", due=timedelta(minutes=1))
    waiting = await backlog_of(sessions)

    assert (waiting.oldest_runnable_age_s, waiting.relay_lag_s) == (0, 0)
