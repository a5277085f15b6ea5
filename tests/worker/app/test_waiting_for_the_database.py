"""A worker that begins during an outage waits for its end; what waiting cannot help is an error."""

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.app import schema
from worker.app.schema import wait_for_database
from worker.monitoring.events import Events


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(schema, "WAIT_BASE_S", 0.001)


async def test_a_database_that_is_away_is_waited_for():
    tries, emitted = [], []

    async def check():
        tries.append(1)
        if len(tries) < 4:
            raise PoolTimeoutError

    await wait_for_database(check, Events(lambda name, _fields: emitted.append(name)))

    assert len(tries) == 4
    assert emitted == ["worker.waits_for_database"] * 3


async def test_an_error_of_another_kind_is_not():
    tries = []

    async def be_outdated():
        tries.append(1)
        raise RuntimeError("run migrate")

    with pytest.raises(RuntimeError, match="run migrate"):
        await wait_for_database(be_outdated, Events())
    assert len(tries) == 1
