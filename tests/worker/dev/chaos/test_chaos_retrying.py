"""What chaos itself does outlasts its own faults."""

import asyncio

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from worker.dev.chaos import retrying
from worker.dev.chaos.retrying import retry_until_up


@pytest.mark.parametrize(
    "missed", [PoolTimeoutError(), RedisConnectionError(), ConnectionResetError(), TimeoutError()]
)
async def test_a_statement_is_repeated_while_a_server_or_every_connection_is_away(missed):
    tries = []

    async def unit():
        tries.append(1)
        if len(tries) < 3:
            raise missed
        return "done"

    assert await retry_until_up(unit) == "done"


async def test_a_mistake_is_raised_at_once():
    async def unit():
        raise ProgrammingError("SELECT", {}, Exception("no such column"))

    with pytest.raises(ProgrammingError):
        async with asyncio.timeout(10):
            await retry_until_up(unit)


async def test_it_does_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr(retrying, "RETRY_MAX_S", 0.0)

    async def unit():
        raise PoolTimeoutError

    with pytest.raises(PoolTimeoutError):
        async with asyncio.timeout(10):
            await retry_until_up(unit)
