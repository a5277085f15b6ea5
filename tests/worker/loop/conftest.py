"""A real Valkey for the loop: one that is shared and flushed, and one that a test may break."""

import pytest
from arq.connections import ArqRedis

from worker.dev.servers import ValkeyServer

from .kit import Fleet, WorkerProcess


@pytest.fixture(scope="session")
def valkey(tmp_path_factory):
    with ValkeyServer(tmp_path_factory.mktemp("loop") / "valkey", append_only=False) as server:
        yield server


@pytest.fixture
async def redis(valkey):
    """An arq client of an empty Redis."""
    client = ArqRedis(host="127.0.0.1", port=valkey.port)
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.fixture
async def fleet(valkey, redis):
    workers = Fleet(valkey.port)
    yield workers
    await workers.close()


@pytest.fixture
def processes(valkey, redis):
    """Starts workers in processes of their own."""
    started = []

    def start(**environment):
        started.append(WorkerProcess(valkey.port, **environment))
        return started[-1]

    yield start
    for process in started:
        process.end()


@pytest.fixture
def fragile(tmp_path):
    """A Valkey of this test alone, to be stopped and frozen; it forgets when it restarts."""
    with ValkeyServer(tmp_path / "fragile", append_only=False) as server:
        yield server


@pytest.fixture
def lasting(tmp_path):
    """A Valkey of this test alone that remembers over a restart."""
    with ValkeyServer(tmp_path / "lasting", append_only=True) as server:
        yield server


@pytest.fixture
async def connect():
    """Opens arq clients of any server."""
    clients = []

    def open_client(server):
        clients.append(ArqRedis(host="127.0.0.1", port=server.port))
        return clients[-1]

    yield open_client
    for client in clients:
        await client.aclose(close_connection_pool=True)


@pytest.fixture
async def fleet_on():
    """Fleets on other servers than the shared one."""
    fleets = []

    def make(server):
        fleets.append(Fleet(server.port))
        return fleets[-1]

    yield make
    for workers in fleets:
        await workers.close()
