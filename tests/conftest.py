"""Real servers for the tests: given by URL, or started from wheels.

Every test process has servers of its own, so that the suite can run on all cores: a test may
flush, stop or count what it finds. Where servers are given instead, each process has a numbered
Redis database. A migrated template database is made once in a process; every module gets a copy.
"""

import os

import pytest
import redis.asyncio as redis_asyncio
from sqlalchemy import make_url

from db.engine import create_engine, create_sessions
from tests import servers as versions
from tests.event_loop import PatientEventLoop
from tests.letters import add_samples, in_the_folder
from worker.dev.pytest_plugin import Databases
from worker.dev.servers import Stack
from worker.dev.servers.programs import POSTGRES_OVERRIDE

POOL_SIZE = 24
SERVER_FIXTURES = {
    *("servers", "teller_databases", "stack", "valkey", "fragile", "lasting"),
    *("pair", "tls_postgres"),
}
"""Whatever starts a server or connects to a given one."""


def pytest_configure():
    """Have every server of the tests be of the version that was asked for."""
    major = os.environ.get(versions.SERVER)
    if major:
        os.environ[POSTGRES_OVERRIDE] = str(versions.postgres(int(major)))


def pytest_asyncio_loop_factories():
    """Have every test run in a loop that leaves no socket to the next."""
    return {"patient": PatientEventLoop}


def pytest_collection_modifyitems(items):
    """Mark the tests that need a server; `make test-fast` runs the others.

    Files with slow tests come first: what is left at the end is then short, on every core.
    """
    for item in items:
        if SERVER_FIXTURES.intersection(item.fixturenames):
            item.add_marker("needs_servers")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """The URLs of a PostgreSQL and a Valkey that tests may fill and flush."""
    database_url, redis_url = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    if database_url and redis_url:
        yield database_url, _own_redis_database(redis_url)
        return
    with Stack.start(tmp_path_factory.mktemp("servers"), durable=False) as stack:
        yield stack.database_url, stack.redis_url


def _own_redis_database(url):
    """Return the URL of the Redis database whose number is that of this test process."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    given = make_url(url)
    return given.set(database=str(int(given.database or 0) + number)).render_as_string(
        hide_password=False
    )


@pytest.fixture(scope="session")
def databases(servers):
    made = Databases(servers[0], add_samples)
    yield made
    made.drop(made.template)


@pytest.fixture(scope="module")
def database_url(databases):
    """The URL of a migrated database that this module has for itself."""
    with databases.copy() as url:
        yield url


@pytest.fixture
def new_database_url(databases):
    """The URL of a migrated database that this test has for itself."""
    with databases.copy() as url:
        yield url


@pytest.fixture
def empty_database_url(databases):
    """The URL of a database without a schema."""
    name = databases.create()
    yield databases.url(name)
    databases.drop(name)


@pytest.fixture
async def engine(database_url):
    made = create_engine(database_url, pool_size=POOL_SIZE, application_name="teller-tests")
    yield made
    await made.dispose()


@pytest.fixture
def sessions(engine):
    return create_sessions(engine)


@pytest.fixture
def letters():
    """Let the registry know the samples' kinds, as if their files were in `jobs/`."""
    with in_the_folder():
        yield


@pytest.fixture
def redis_url(servers):
    return servers[1]


@pytest.fixture
async def redis(redis_url):
    """A connection to a Redis that is empty when the test begins."""
    client = redis_asyncio.from_url(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()
