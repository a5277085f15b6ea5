"""Servers that only the chaos tests use, since they hurt them."""

import asyncio

import pytest

from db.engine import create_engine, create_sessions
from worker.app import migrate_database
from worker.dev.chaos.faults import Targets
from worker.dev.chaos.fleet import Fleet, environment
from worker.dev.chaos.proxy import CommitProxy
from worker.dev.servers import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A PostgreSQL with the schema, and a Valkey."""
    with Stack.start(tmp_path_factory.mktemp("chaos"), durable=False) as made:
        asyncio.run(_migrate(made.database_url))
        yield made


async def _migrate(url):
    engine = create_engine(url, pool_size=2, application_name="teller-tests")
    await migrate_database(engine)
    await engine.dispose()


@pytest.fixture
async def own_engine(stack):
    made = create_engine(stack.database_url, pool_size=4, application_name="teller-tests")
    yield made
    await made.dispose()


@pytest.fixture
def own_sessions(own_engine):
    return create_sessions(own_engine)


@pytest.fixture
async def fleet(stack, tmp_path):
    """Two worker processes."""
    variables = {
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "TELLER_REPORTS_URL": (tmp_path / "reports").as_uri(),
        "TELLER_HEALTH_PORT": "0",
    }
    made = Fleet(tmp_path, size=2, concurrency=8)
    with environment(**variables):
        await made.start()
        yield made
        await made.stop()


@pytest.fixture
def targets(stack, own_engine, tmp_path):
    """Everything but workers."""
    nobody = Fleet(tmp_path, size=0, concurrency=1)
    proxy = CommitProxy("127.0.0.1", stack.postgres.port)
    return Targets(nobody, proxy, stack.redis_url, own_engine, stack.postgres, stack.valkey)
