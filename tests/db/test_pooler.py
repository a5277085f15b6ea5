"""By way of PgBouncer in transaction mode: the tests of connections and of jobs, and its own."""

import asyncio
import re
from collections import Counter

import asyncpg
import pytest
from sqlalchemy import make_url, text

from db.engine import create_engine, create_sessions
from db.migrate import migrate, newest_revision
from db.transaction import JobTransaction
from tests.db.kit import left_on
from tests.db.test_connection import (  # noqa: F401 - they run here once more
    failure_of,
    impatient,
    small,
    test_a_connection_that_refused_to_write_is_replaced_whatever_it_reports,
    test_a_lock_of_a_job_is_free_as_soon_as_the_job_has_ended,
    test_a_snapshot_job_leaves_nothing_either,
    test_a_transaction_that_was_ended_is_noticed_before_anything_else_is_written,
    test_an_error_in_the_job_leaves_nothing_either,
    test_it_is_gone_whichever_way_it_was_sent,
    test_the_audits_own_limits_hold_for_driver_and_server,
    test_the_limits_of_server_and_driver_follow_the_jobs_timeout,
    test_the_next_user_of_the_connection_has_the_usual_limits,
    test_the_settings_given_at_connect_are_back_after_a_reset,
    test_the_worker_concludes_a_job_as_itself,
    test_those_of_a_snapshot_job_too_in_each_of_its_transactions,
    test_what_a_job_leaves_is_gone_before_the_next_one_and_the_connection_stays,
)
from tests.pooler import SERVER_CONNECTIONS, PgBouncer, program
from tests.servers import fetched
from tests.worker.execution.test_executor import (  # noqa: F401
    test_a_backend_that_is_terminated_before_the_fence_costs_nothing,
    test_a_backend_that_is_terminated_mid_job_costs_nothing,
    test_a_cancelled_row_is_not_run,
    test_a_conflict_runs_again_at_once_in_a_new_session,
    test_a_job_delivered_many_times_at_once_takes_effect_once,
    test_a_job_delivered_twice_takes_effect_once,
    test_a_rejection_is_final_and_keeps_nothing_that_was_written,
    test_a_snapshot_job_reads_one_moment_and_cannot_write,
    test_the_effect_and_the_outcome_commit_together,
    test_two_hundred_cancels_at_random_leave_no_outcome_in_doubt,
    toys,
)

IGNORED = "jit,lock_timeout,statement_timeout,transaction_timeout,search_path"
CLIENTS = 5 * SERVER_CONNECTIONS

LEAVINGS = [
    "SET lock_timeout = '77s'",
    "SET ROLE clerk",
    "SET search_path = elsewhere",
    "SET TIME ZONE 'Asia/Kathmandu'",
    "SELECT pg_advisory_lock_shared(42)",
    "CREATE TEMPORARY TABLE IF NOT EXISTS jobs (a int)",
    "PREPARE left_over AS SELECT 1",
]
MET = text("""
    SELECT current_setting('lock_timeout'), current_setting('statement_timeout'),
           current_setting('search_path'), current_setting('TimeZone'), current_user,
           'jobs'::regclass::text
""")


@pytest.fixture(scope="module")
def pooler(servers, tmp_path_factory):
    fetched(program)
    with PgBouncer(tmp_path_factory.mktemp("pooler"), servers[0]) as running:
        yield running


@pytest.fixture(scope="module")
def direct_url(databases):
    with databases.copy() as url:
        yield url


@pytest.fixture(scope="module")
def database_url(direct_url, pooler):
    """The URL by which every fixture and test here connects."""
    return pooler.of(direct_url)


async def test_it_is_noticed_by_its_refusal_of_what_a_server_takes(database_url, engine):
    with pytest.raises(asyncpg.PostgresError, match="unsupported startup parameter"):
        await asyncpg.connect(database_url, server_settings={"jit": "off"})

    async with JobTransaction(engine) as transaction:
        assert transaction._driver.is_pooled


async def test_it_is_noticed_where_it_was_told_to_ignore_what_a_server_takes(
    servers, direct_url, tmp_path
):
    keepalives = "tcp_keepalives_idle,tcp_keepalives_interval,tcp_keepalives_count"
    ignored = f"{IGNORED},{keepalives},idle_in_transaction_session_timeout"
    silent = PgBouncer(tmp_path, servers[0], ignore_startup_parameters=ignored)
    with silent:
        engine = create_engine(silent.of(direct_url), pool_size=1, application_name="tests")
        async with JobTransaction(engine) as transaction:
            assert transaction._driver.is_pooled
            limit = await transaction.session.scalar(text("SHOW lock_timeout"))
        await engine.dispose()
    assert limit == "2s"


async def test_a_server_itself_is_not_taken_for_a_pooler(direct_url):
    engine = create_engine(direct_url, pool_size=1, application_name="tests")
    async with JobTransaction(engine) as transaction:
        assert not transaction._driver.is_pooled
    await engine.dispose()


async def test_many_clients_on_few_sessions_find_nothing_of_each_other(small, engine):  # noqa: F811
    async def leave(sql):
        async with JobTransaction(engine) as transaction:
            await transaction.session.execute(text(sql))
            await transaction.conclude()
            await transaction.commit()

    async def look():
        async with create_sessions(engine)() as session:
            met = tuple((await session.execute(MET)).one())
            return met, tuple(await left_on(session))

    async def client(number):
        await leave(LEAVINGS[number % len(LEAVINGS)])
        return await look()

    met = Counter(await asyncio.gather(*(client(number) for number in range(CLIENTS))))

    usual = ("2s", "15s", '"$user", public', "UTC", "postgres", "jobs")
    assert met == {(usual, ()): CLIENTS}


async def test_they_do_share_sessions_of_the_server(engine):
    async def pid():
        async with JobTransaction(engine) as transaction:
            return await transaction.session.scalar(text("SELECT pg_backend_pid()"))

    pids = await asyncio.gather(*(pid() for _ in range(CLIENTS)))

    assert len(set(pids)) <= SERVER_CONNECTIONS


async def test_no_statement_is_prepared_by_name(engine):
    async with JobTransaction(engine) as transaction:
        for number in range(3):
            await transaction.session.execute(text("SELECT :n + 1"), {"n": number})
        names = await transaction.session.execute(text("SELECT name FROM pg_prepared_statements"))
        assert names.all() == []


async def test_a_session_that_can_only_read_is_ended_and_not_given_to_the_next(
    pooler, databases, direct_url
):
    name = await asyncio.to_thread(databases.create)
    direct, through = databases.url(name), pooler.of(databases.url(name))
    owner = await asyncpg.connect(direct)
    await owner.execute("CREATE TABLE notes (text text)")
    await owner.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    engine = create_engine(through, pool_size=1, application_name="tests")

    async def write():
        async with JobTransaction(engine) as transaction:
            await transaction.session.execute(text("INSERT INTO notes VALUES ('x')"))
            await transaction.commit()

    assert "read-only" in str(await failure_of(write()))
    await owner.execute("SET default_transaction_read_only = off")
    await owner.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = off')
    await write()

    assert await owner.fetchval("SELECT count(*) FROM notes") == 1
    await owner.close()
    await engine.dispose()
    await asyncio.to_thread(databases.drop, name)


async def test_several_migrate_at_once_and_no_lock_is_left(pooler, databases):
    name = await asyncio.to_thread(databases.create)
    engines = [
        create_engine(pooler.of(databases.url(name)), pool_size=2, application_name="tests")
        for _ in range(2)
    ]

    reached = await asyncio.gather(*(migrate(engine, {}) for engine in engines))

    assert set(reached) == {newest_revision()}
    owner = await asyncpg.connect(databases.url(name))
    assert await owner.fetchval("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    await owner.close()
    for engine in engines:
        await engine.dispose()
    await asyncio.to_thread(databases.drop, name)


def test_the_pooler_is_reached_by_a_url_of_its_own(database_url, direct_url):
    assert make_url(database_url).port != make_url(direct_url).port
    assert re.search("/teller_test_", database_url)
