"""Every process has a fresh row in `workers`, and finds out whether its servers answer."""

from contextlib import suppress
from datetime import timedelta

import pytest
from redis.asyncio import from_url
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine, create_sessions
from db.workers import Workers
from worker.dev.servers import ValkeyServer
from worker.monitoring import Health
from worker.monitoring.backlog import BacklogMonitor
from worker.monitoring.events import Events
from worker.monitoring.heartbeat import INTERVAL_S, SILENCE_MAX, Heartbeat, code_version
from worker.monitoring.servers import redis_trouble
from worker.monitoring.state import WorkerState
from worker.settings import Settings

KINDS = ["send_letter", "send_card"]


class Redis:
    """What is wrong with it, as far as a test says."""

    found = None

    async def trouble(self):
        return self.found


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


def heart(sessions, state, redis_state, *subscribers):
    return Heartbeat(
        *(sessions, state, KINDS, redis_state.trouble),
        events=Events(*subscribers),
        queue_key="arq:queue",
        queues=["default"],
    )


@pytest.fixture
def heartbeat(sessions, state, redis_state):
    return heart(sessions, state, redis_state)


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
    redis_state.found = "away"
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
    other = heart(sessions, state, redis_state)
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
    lost = heart(create_sessions(engine), state, redis_state)
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
    await heart(create_sessions(engine), state, redis_state).stop()
    await engine.dispose()


async def test_what_is_wrong_with_redis_is_told_once_and_shown_until_it_is_not(
    sessions, state, redis_state
):
    emitted = []
    heartbeat = heart(sessions, state, redis_state, lambda *event: emitted.append(event))
    for redis_state.found in (None, "full", "full", None, "evicts"):
        await heartbeat.step()

    assert emitted == [
        ("redis.trouble", {"trouble": "full"}),
        ("redis.trouble", {"trouble": "evicts"}),
    ]
    assert (state.redis_up, state.mode, state.warnings()) == (True, "normal", ["redis evicts"])


async def as_role(new_database_url, *statements):
    """Return the sessions of a role that owns nothing, after statements by the owner."""
    owner = create_engine(new_database_url, pool_size=1, application_name="owner")
    async with owner.begin() as connection:
        await connection.execute(text("CREATE ROLE plain LOGIN"))
        await connection.execute(text("GRANT ALL ON ALL TABLES IN SCHEMA public TO plain"))
        for statement in statements:
            await connection.execute(text(statement))
    await owner.dispose()
    url = make_url(new_database_url).set(username="plain", password=None)
    return create_engine(
        url.render_as_string(hide_password=False), pool_size=1, application_name="plain"
    )


@pytest.mark.parametrize(
    ("statement", "trouble"),
    [
        ("REVOKE INSERT ON jobs FROM plain", "privileges_missing"),
        ("REVOKE INSERT ON workers FROM plain", "privileges_missing"),
        ("UPDATE teller_version SET version_num = '0000'", "schema_outdated"),
        ("ALTER TABLE jobs RENAME TO works", "schema_outdated"),
        ("ALTER ROLE plain SET default_transaction_read_only = on", "read_only"),
        ("ALTER ROLE plain NOLOGIN", "access_denied"),
    ],
)
async def test_a_postgresql_that_answers_and_serves_no_job_makes_it_unready_by_name(
    new_database_url, state, redis_state, statement, trouble
):
    engine = await as_role(new_database_url, statement)
    try:
        with pytest.raises(Exception, match=r"."):
            await heart(create_sessions(engine), state, redis_state).step()
    finally:
        await engine.dispose()
        owner = create_engine(new_database_url, pool_size=1, application_name="owner")
        async with owner.begin() as connection:
            await connection.execute(text("DROP OWNED BY plain"))
            await connection.execute(text("DROP ROLE plain"))
        await owner.dispose()

    assert state.reasons_unready() == [f"postgresql {trouble}"]


async def test_connections_made_while_postgresql_was_read_only_do_not_outlive_that(
    new_database_url, state, redis_state
):
    name = make_url(new_database_url).database
    engine = create_engine(new_database_url, pool_size=3, application_name="teller-tests")
    heartbeat = heart(create_sessions(engine), state, redis_state)

    async def set_read_only(value):
        owner = create_engine(new_database_url, pool_size=1, application_name="owner")
        async with owner.connect() as connection:
            await connection.execution_options(isolation_level="AUTOCOMMIT")
            await connection.execute(text("SET default_transaction_read_only = off"))
            await connection.execute(
                text(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
            )
            if value == "on":
                others = "datname = :name AND pid <> pg_backend_pid()"
                await connection.execute(
                    text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}"),
                    {"name": name},
                )
        await owner.dispose()

    try:
        await heartbeat.step()
        await set_read_only("on")
        # Every connection of the pool is a new one, and knows PostgreSQL as read-only.
        sessions = [create_sessions(engine)() for _ in range(3)]
        for session in sessions:
            with suppress(Exception):
                await session.execute(text("SELECT 1"))
        for session in sessions:
            await session.close()
        for _ in range(2):
            with pytest.raises(DBAPIError):
                await heartbeat.step()
        assert state.reasons_unready() == ["postgresql read_only"]

        await set_read_only("off")
        beats = 0
        while state.reasons_unready():
            beats += 1
            with suppress(DBAPIError):
                await heartbeat.step()
        assert beats <= BEATS_MAX
    finally:
        await engine.dispose()


BEATS_MAX = 4
"""One connection of the pool is found out with each beat, and a beat comes every few seconds."""


async def test_redis_says_itself_what_is_wrong(redis_url, tmp_path):
    with ValkeyServer(tmp_path / "valkey") as server:
        client = from_url(server.url)
        try:
            assert await redis_trouble(client) is None
            await client.config_set("maxmemory", "1mb")
            assert await redis_trouble(client) == "full"
            await client.config_set("maxmemory-policy", "allkeys-lru")
            assert await redis_trouble(client) == "evicts"
            await client.execute_command("REPLICAOF", "127.0.0.1", "9")
            assert await redis_trouble(client) == "read_only"
            server.kill()
            assert await redis_trouble(client) == "away"
        finally:
            await client.aclose()


async def test_workers_of_another_queue_on_the_same_database_are_told(
    heartbeat, sessions, redis_url, database_url
):
    emitted = []
    await heartbeat.step()
    settings = Settings(
        DATABASE_URL=database_url, REDIS_URL=redis_url, queue_name="letters", health_port=0
    )
    health = Health(
        *(settings, sessions, Events(lambda *event: emitted.append(event)), KINDS),
        is_draining=lambda: False,
        redis_trouble=Redis().trouble,
    )
    _, backlog = health.duties
    for _ in range(2):
        await backlog.step()

    assert emitted == [("worker.other_queues", {"queue": "letters", "others": ["arq:queue"]})]
    assert health.state.warnings() == ["the same queues under other keys: arq:queue"]


async def test_jobs_that_wait_for_their_environment_are_counted_by_kind_and_cause(sessions):
    await add(sessions, "queued", due=timedelta(minutes=1), count=3)
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE jobs SET blocked_by = 'environment:42501', "
                "blocked_since = now() - interval '1 minute'"
            )
        )
    [blocked] = (await backlog_of(sessions)).blocked

    assert (blocked.kind, blocked.cause, blocked.jobs) == ("a", "environment:42501", 3)
    assert 60 <= blocked.since_s < 90


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
