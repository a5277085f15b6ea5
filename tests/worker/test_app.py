"""A worker that begins during an outage waits for its end; what waiting cannot help is an error."""

import pytest

from worker import outlast as module
from worker.monitoring.events import Events
from worker.outlast import outlast


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(module, "WAIT_BASE_S", 0.001)


async def test_a_database_that_is_away_is_waited_for():
    tries, told = [], []

    async def connect():
        tries.append(1)
        if len(tries) < 4:
            raise TimeoutError
        return "there"

    assert await outlast(connect, Events(lambda name, _fields: told.append(name))) == "there"
    assert len(tries) == 4
    assert told == ["worker.waits_for_database"] * 3


async def test_an_error_of_another_kind_is_not():
    async def be_outdated():
        raise RuntimeError("run migrate")

    with pytest.raises(RuntimeError, match="run migrate"):
        await outlast(be_outdated, Events())
