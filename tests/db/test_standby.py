"""A standby that follows by streaming is promoted: nobody stays with what can only read."""

import asyncio
import shutil
from urllib.parse import urlencode

import asyncpg
import pytest
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from db.errors import Trouble, diagnose
from db.transaction import JobTransaction
from tests.worker.loop.kit import eventually
from worker.dev.servers import PostgresServer
from worker.dev.servers.server import free_port

DEADLINE_S = 60
WRITE = text("INSERT INTO notes (text) VALUES (:text)")


class Primary(PostgresServer):
    """A server that can be followed."""

    def _command(self, port):
        return [*super()._command(port), "-c", "wal_level=replica", "-c", "max_wal_senders=4"]


class Standby(Primary):
    """A copy of a server, which follows it."""

    @classmethod
    def of(cls, primary, directory):
        """Copy a server that is stopped; it is started again."""
        standby = cls(directory, durable=False)
        standby.directory.mkdir(parents=True, exist_ok=True)
        primary._halt()
        shutil.copytree(primary.data, standby.data)
        standby.data.chmod(0o700)
        primary.start()
        followed = f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres'\n"
        with (standby.data / "postgresql.auto.conf").open("a") as file:
            file.write(followed)
        (standby.data / "standby.signal").touch()
        standby._port = free_port()
        return standby


@pytest.fixture
def pair(tmp_path):
    """A primary and its standby."""
    with (
        Primary(tmp_path / "primary", durable=False) as primary,
        Standby.of(primary, tmp_path / "standby") as standby,
    ):
        yield primary, standby


@pytest.fixture
async def engine(pair):
    """One that knows both, and wants the one that writes."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in pair)
    wanted = urlencode({"target_session_attrs": "read-write", "connect_timeout": 5})
    url = f"postgresql://postgres@{hosts}/postgres?{wanted}"
    made = create_engine(url, pool_size=4, application_name="teller-tests")
    async with made.begin() as connection:
        await connection.execute(text("CREATE TABLE notes (text text)"))
    yield made
    await made.dispose()


async def sql(server, statement):
    connection = await asyncpg.connect(server.url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def followed(pair):
    """Wait until the standby has all that the primary has committed."""
    primary, standby = pair
    written = await sql(primary, "SELECT pg_current_wal_lsn()::text")
    behind = f"SELECT pg_last_wal_replay_lsn() >= '{written}'::pg_lsn"
    await eventually(lambda: sql(standby, behind), deadline_s=DEADLINE_S)


async def write(engine, words):
    async with JobTransaction(engine) as transaction:
        await transaction.session.execute(WRITE, {"text": words})
        await transaction.commit()


async def write_until_taken(engine, words):
    """Try as a worker does; return the troubles on the way."""
    troubles = []
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                await write(engine, words)
            except Exception as error:  # noqa: BLE001 - what it was is judged below
                troubles.append(diagnose(error).trouble)
                await asyncio.sleep(0.1)
            else:
                return troubles


async def test_after_a_promotion_every_connection_is_the_new_primarys(pair, engine):
    primary, standby = pair
    await asyncio.gather(*(write(engine, f"before {n}") for n in range(8)))
    await followed(pair)

    await asyncio.to_thread(primary.kill)
    await sql(standby, "SELECT pg_promote()")
    troubles = await write_until_taken(engine, "after")
    await asyncio.gather(*(write(engine, f"after {n}") for n in range(8)))

    assert set(troubles) <= {Trouble.CONNECTION}
    assert await sql(standby, "SELECT count(*) FROM notes") == 17


async def test_a_primary_that_comes_back_as_a_standby_keeps_nobody(pair, engine):
    """Its sessions were open all the while: they can only read, and are given up."""
    primary, standby = pair
    await write(engine, "before")
    await followed(pair)

    await sql(standby, "SELECT pg_promote()")
    await sql(primary, "ALTER SYSTEM SET default_transaction_read_only = on")
    await sql(primary, "SELECT pg_reload_conf()")
    troubles = await write_until_taken(engine, "after")

    assert set(troubles) <= {Trouble.CONNECTION}
    assert await sql(standby, "SELECT string_agg(text, ', ' ORDER BY text) FROM notes") == (
        "after, before"
    )
    async with create_sessions(engine)() as session:
        assert await session.scalar(text("SELECT NOT pg_is_in_recovery()"))
        assert await session.scalar(text("SHOW default_transaction_read_only")) == "off"


async def test_a_standby_alone_is_told_as_one_that_can_only_read(pair, engine):
    _, standby = pair
    await followed(pair)
    lonely = create_engine(standby.url, pool_size=1, application_name="teller-tests")
    with pytest.raises(Exception, match="read-only") as told:
        await write(lonely, "refused")
    await lonely.dispose()
    assert diagnose(told.value).trouble is Trouble.CONNECTION
