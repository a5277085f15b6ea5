"""A fresh look tells a server that is away from one that serves."""

import pytest

from db.engine import create_engine
from db.probe import ServerProbe


@pytest.fixture
async def engine_at():
    made = []

    def create(url):
        made.append(create_engine(url, pool_size=1, application_name="teller-tests"))
        return made[-1]

    yield create
    for engine in made:
        await engine.dispose()


async def test_a_server_that_serves_is_not_away(engine_at, database_url):
    assert not await ServerProbe(engine_at(database_url)).is_away()


async def test_a_server_that_refuses_is_away(engine_at):
    assert await ServerProbe(engine_at("postgresql://teller@127.0.0.1:1/none")).is_away()


async def test_a_database_that_can_only_be_read_is_away(engine_at, new_database_url):
    engine = engine_at(new_database_url)
    async with engine.begin() as connection:
        await connection.exec_driver_sql(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on',"
            " current_database()); END $$"
        )

    assert await ServerProbe(engine).is_away()
