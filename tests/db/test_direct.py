"""A job's own transaction: what stays, what goes, and what comes back to the pool."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.direct import TransactionGoneError, begin, commit, driver_of
from db.engine import create_engine, create_sessions

COUNT = text("SELECT count(*) FROM notes")
WRITE = text("INSERT INTO notes VALUES ('by SQLAlchemy')")


@pytest.fixture
async def sessions(database_url):
    """Return the sessions of a pool with one connection, so that whoever comes next gets it."""
    engine = create_engine(database_url, pool_size=1, application_name="teller-tests")
    sessions = create_sessions(engine)
    async with sessions() as session, session.begin():
        await session.execute(text("CREATE TABLE IF NOT EXISTS notes (text text NOT NULL)"))
        await session.execute(text("DELETE FROM notes"))
    yield sessions
    await engine.dispose()


async def notes(sessions):
    async with sessions() as session:
        return await session.scalar(COUNT)


async def write_both_ways(session):
    await session.execute(WRITE)
    await (await driver_of(session)).execute("INSERT INTO notes VALUES ('by the driver')")


async def test_what_is_committed_stays_whichever_way_it_was_written(sessions):
    async with sessions() as session:
        await begin(session)
        await write_both_ways(session)
        await commit(session)

    assert await notes(sessions) == 2


async def test_what_is_not_committed_goes_when_the_session_closes(sessions):
    async with sessions() as session:
        await begin(session)
        await write_both_ways(session)

    assert await notes(sessions) == 0


async def test_a_rollback_undoes_it_and_another_may_begin(sessions):
    async with sessions() as session:
        await begin(session)
        await write_both_ways(session)
        await session.rollback()
        await begin(session)
        await session.execute(WRITE)
        await commit(session)

    assert await notes(sessions) == 1


async def test_an_error_in_the_block_undoes_it_and_the_connection_serves_the_next(sessions):
    async def write_and_fail():
        async with sessions() as session:
            await begin(session)
            await write_both_ways(session)
            await session.execute(text("SELECT 1/0"))

    with pytest.raises(DBAPIError):
        await write_and_fail()

    assert await notes(sessions) == 0


async def test_the_next_session_has_transactions_of_its_own(sessions):
    async with sessions() as session:
        await begin(session)
        await commit(session)

    async with sessions() as session:
        await write_both_ways(session)

    assert await notes(sessions) == 0


async def test_a_savepoint_works_in_it(sessions):
    async def write_and_fail(session):
        async with session.begin_nested():
            await session.execute(WRITE)
            await session.execute(text("SELECT 1/0"))

    async with sessions() as session:
        await begin(session)
        await session.execute(WRITE)
        with pytest.raises(DBAPIError):
            await write_and_fail(session)
        await commit(session)

    assert await notes(sessions) == 1


@pytest.mark.parametrize("how", ["commit", "rollback", "close"])
async def test_a_session_that_was_ended_by_somebody_else_has_nothing_to_commit(sessions, how):
    async with sessions() as session:
        await begin(session)
        await write_both_ways(session)
        await getattr(session, how)()
        await session.execute(WRITE)
        with pytest.raises(TransactionGoneError, match="must not commit"):
            await commit(session)

    assert await notes(sessions) == 0


async def test_a_snapshot_reads_one_moment_and_cannot_write(sessions):
    async with sessions() as session:
        await begin(session, snapshot=True)
        with pytest.raises(DBAPIError, match="read-only"):
            await session.execute(WRITE)


async def test_a_pooled_connection_that_was_lost_meanwhile_is_replaced_before_it_is_used(
    sessions, engine
):
    async with sessions() as session:
        pid = await session.scalar(text("SELECT pg_backend_pid()"))
    async with engine.connect() as other:
        await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    async with sessions() as session:
        await begin(session)
        await session.execute(WRITE)
        await commit(session)

    assert await notes(sessions) == 1
