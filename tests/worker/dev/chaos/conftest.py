"""Servers that only the chaos tests use, since they hurt them."""

import asyncio
import uuid

import pytest

from db.engine import create_engine, create_sessions
from worker.app import migrate_database
from worker.dev.chaos.faults import Targets
from worker.dev.chaos.fleet import Fleet, environment
from worker.dev.chaos.member import JOBS
from worker.dev.chaos.proxy import CommitProxy, Proxy
from worker.dev.servers import Stack
from worker.dev.workload import connect


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """A PostgreSQL with the schema, and a Valkey."""
    with Stack.start(tmp_path_factory.mktemp("chaos"), durable=False) as made:
        asyncio.run(_migrate(made.database_url))
        yield made


async def _migrate(url):
    engine = create_engine(url, pool_size=2, application_name="teller-tests")
    await migrate_database(engine, jobs=JOBS)
    await engine.dispose()


@pytest.fixture
async def own_engine(stack):
    made = create_engine(stack.database_url, pool_size=4, application_name="teller-tests")
    yield made
    await made.dispose()


@pytest.fixture
def own_sessions(own_engine):
    return create_sessions(own_engine)


def variables_of(stack, directory):
    return {
        "DATABASE_URL": stack.database_url,
        "REDIS_URL": stack.redis_url,
        "TELLER_REPORTS_URL": (directory / "reports").as_uri(),
        "TELLER_WEBHOOK_PRIVATE": "allowed",
        "TELLER_HEALTH_PORT": "0",
    }


@pytest.fixture
async def fleet(stack, tmp_path):
    """Two worker processes."""
    made = Fleet(tmp_path, size=2)
    with environment(**variables_of(stack, tmp_path)):
        await made.start()
        yield made
        await made.stop()


@pytest.fixture(scope="module")
def running_worker(stack, tmp_path_factory):
    """One worker process, for the tests of a module that do it no harm."""
    made = Fleet(tmp_path_factory.mktemp("worker"), size=1)
    with environment(**variables_of(stack, made.directory)):
        asyncio.run(made._add())
    asyncio.run(made.ready())
    yield
    for member in made.members:
        member.process.close()


@pytest.fixture
async def targets(stack, tmp_path):
    """Everything but workers."""
    nobody = Fleet(tmp_path, size=0)
    proxies = (CommitProxy("127.0.0.1", stack.postgres.port), Proxy("127.0.0.1", stack.valkey.port))
    urls = (stack.database_url, stack.redis_url)
    async with connect(*urls, pool_size=4, application_name="teller-tests") as connections:
        await connections.redis.flushdb()
        yield Targets(
            *(nobody, *proxies, connections, f"test-{uuid.uuid4().hex[:6]}-"),
            postgres=stack.postgres,
            valkey=stack.valkey,
        )
