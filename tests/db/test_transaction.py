"""A job's own transaction: what stays, what goes, and what comes back to the pool."""

import asyncio

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.engine import create_engine, create_sessions
from db.statements import NotYoursError
from db.transaction import JobTransaction, driver_of


class Base(DeclarativeBase):
    """The tables of these tests."""


class Note(Base):
    """A note, for what a session holds and has not written yet."""

    __tablename__ = "notes"

    text: Mapped[str] = mapped_column(primary_key=True)


COUNT = text("SELECT count(*) FROM notes")
WRITE = text("INSERT INTO notes VALUES ('by SQLAlchemy')")


@pytest.fixture
async def small(database_url):
    """Return an engine with one connection, so that whoever comes next gets it."""
    engine = create_engine(database_url, pool_size=1, application_name="teller-tests")
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE IF NOT EXISTS notes (text text NOT NULL)"))
        await connection.execute(text("DELETE FROM notes"))
    yield engine
    await engine.dispose()


async def notes(engine):
    async with create_sessions(engine)() as session:
        return await session.scalar(COUNT)


async def write_both_ways(session):
    await session.execute(WRITE)
    await (await driver_of(session)).execute("INSERT INTO notes VALUES ('by the driver')")


async def test_what_is_committed_stays_whichever_way_it_was_written(small):
    async with JobTransaction(small) as transaction:
        await write_both_ways(transaction.session)
        await transaction.commit()

    assert await notes(small) == 2


async def test_what_is_not_committed_goes(small):
    async with JobTransaction(small) as transaction:
        await write_both_ways(transaction.session)

    assert await notes(small) == 0


async def test_after_a_restart_only_what_follows_stays(small):
    async with JobTransaction(small) as transaction:
        transaction.session.add(Note(text="too early"))
        await write_both_ways(transaction.session)
        await transaction.restart()
        await transaction.session.execute(WRITE)
        await transaction.commit()

    assert await notes(small) == 1
    async with create_sessions(small)() as session:
        assert not await session.scalar(select(Note).where(Note.text == "too early"))


async def test_a_restart_helps_after_an_error(small):
    async with JobTransaction(small) as transaction:
        with pytest.raises(DBAPIError):
            await transaction.session.execute(text("SELECT 1/0"))
        await transaction.restart()
        await write_both_ways(transaction.session)
        await transaction.commit()

    assert await notes(small) == 2


async def test_an_error_in_the_block_undoes_it_and_the_connection_serves_the_next(small):
    async def write_and_fail():
        async with JobTransaction(small) as transaction:
            await write_both_ways(transaction.session)
            await transaction.session.execute(text("SELECT 1/0"))

    with pytest.raises(DBAPIError):
        await write_and_fail()

    assert await notes(small) == 0


async def test_the_next_session_has_transactions_of_its_own(small):
    async with JobTransaction(small) as transaction:
        await transaction.commit()

    async with create_sessions(small)() as session:
        await write_both_ways(session)

    assert await notes(small) == 0


async def test_a_savepoint_works_in_it(small):
    async def write_and_fail(session):
        async with session.begin_nested():
            await session.execute(WRITE)
            await session.execute(text("SELECT 1/0"))

    async with JobTransaction(small) as transaction:
        await transaction.session.execute(WRITE)
        with pytest.raises(DBAPIError):
            await write_and_fail(transaction.session)
        await transaction.commit()

    assert await notes(small) == 1


async def test_a_savepoint_that_is_left_open_is_no_trouble(small):
    async with JobTransaction(small) as transaction:
        await transaction.session.begin_nested()
        await transaction.session.execute(WRITE)

    assert await notes(small) == 0


@pytest.mark.parametrize("how", ["begin", "commit", "rollback", "close"])
async def test_a_job_can_neither_begin_nor_end_its_transaction(small, how):
    async with JobTransaction(small) as transaction:
        await transaction.session.execute(WRITE)
        with pytest.raises(NotYoursError, match="must not commit"):
            await getattr(transaction.session, how)()
        await transaction.commit()

    assert await notes(small) == 1


async def test_a_pooled_connection_that_was_lost_meanwhile_is_replaced_before_it_is_used(
    small, engine
):
    async with JobTransaction(small) as transaction:
        pid = await transaction.session.scalar(text("SELECT pg_backend_pid()"))
    async with engine.connect() as other:
        await other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})

    async with JobTransaction(small) as transaction:
        await transaction.session.execute(WRITE)
        await transaction.commit()

    assert await notes(small) == 1


async def test_cancelled_at_any_moment_it_leaves_nothing_open_and_nothing_behind(small):
    """Within BEGIN as well, when the driver does not know yet what it has begun."""

    async def write():
        async with JobTransaction(small) as transaction:
            await write_both_ways(transaction.session)
            await asyncio.sleep(60)

    for steps in range(60):
        task = asyncio.ensure_future(write())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await notes(small) == 0, f"cancelled after {steps} steps"
    assert small.pool.checkedout() == 0
