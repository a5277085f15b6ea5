"""Waiters are woken by Redis itself; where that fails, they look again."""

import asyncio
import uuid
from datetime import timedelta
from decimal import Decimal

import pytest

from jobs import Client, JobNotFoundError, Rejected, Request
from jobs._client import client as _client
from jobs._client import waiter as _wakeup
from jobs._client.waiter import Wakeups
from jobs.transfer_funds import TransferFunds

HOUR = timedelta(hours=1)
NEVER_S = 1_000_000
REJECTED = (
    b'{"t":1,"f":"transfer_funds","a":[],"k":{},"et":1,"s":true,"r":{"rejected":{"code":"no"}}}'
)


@pytest.fixture
async def client(redis):
    async with Client(redis) as made:
        yield made


@pytest.fixture
def reminded(monkeypatch):
    """Ids of keys for which the server was asked to tell, as they come."""
    keys = asyncio.Queue()
    remind = Wakeups.remind

    async def tell(self, key):
        answer = await remind(self, key)
        keys.put_nowait(key)
        return answer

    monkeypatch.setattr(Wakeups, "remind", tell)
    return keys


async def enqueue(client, how_many=1):
    payload = TransferFunds(
        from_account=uuid.UUID(int=1),
        to_account=uuid.UUID(int=2),
        amount=Decimal("1.00"),
        currency="EUR",
    )
    return await client.enqueue_many([Request(payload, delay=HOUR)] * how_many)


async def wait_for(jobs, reminded):
    """Start waiting, and return once the server has been asked about every job."""
    waiting = [asyncio.create_task(job.result(timeout=30)) for job in jobs]
    for _ in jobs:
        await asyncio.wait_for(reminded.get(), 10)
    return waiting


async def test_a_waiter_is_woken_although_it_never_looks_again(
    client, redis, reminded, monkeypatch
):
    monkeypatch.setattr(_client, "WOKEN_LOOK_AGAIN_S", NEVER_S)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], reminded)
    await redis.set(f"arq:result:{job.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_many_waiters_share_two_connections_and_let_them_go(client, redis, reminded):
    jobs = await enqueue(client, 50)
    waiting = await wait_for(jobs, reminded)
    flags = [one["flags"] for one in await redis.client_list()]
    for job in jobs:
        await redis.set(f"arq:result:{job.redis_id}", REJECTED)
    ends = await asyncio.gather(*waiting)

    assert sum("t" in flag for flag in flags) == 1
    assert sum("P" in flag for flag in flags) == 1
    assert ends == [Rejected("no")] * 50
    assert client._wakeups._reader is None


async def test_a_flush_wakes_everyone(client, redis, reminded, monkeypatch):
    monkeypatch.setattr(_client, "WOKEN_LOOK_AGAIN_S", NEVER_S)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], reminded)
    await redis.flushdb()

    with pytest.raises(JobNotFoundError):
        await waiting


async def test_a_waiter_whose_connections_died_connects_again(client, redis, reminded, monkeypatch):
    monkeypatch.setattr(_client, "WOKEN_LOOK_AGAIN_S", NEVER_S)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], reminded)
    await redis.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")
    await asyncio.wait_for(reminded.get(), 10)
    await redis.set(f"arq:result:{job.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_a_redis_that_does_not_tell_is_asked_again(client, redis, reminded, monkeypatch):
    async def refuse(_):
        raise ConnectionError

    monkeypatch.setattr(Wakeups, "_connect", refuse)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], reminded)
    await redis.set(f"arq:result:{job.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_a_waiter_that_gives_up_does_not_disturb_the_others(client, redis, reminded):
    first, second = await enqueue(client, 2)
    giving_up, waiting = await wait_for([first, second], reminded)
    giving_up.cancel()
    await asyncio.wait({giving_up})
    await redis.set(f"arq:result:{second.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_a_command_cut_short_leaves_no_answer_for_the_next(
    client, redis, reminded, monkeypatch
):
    patient, hasty = await enqueue(client, 2)
    (waiting,) = await wait_for([patient], reminded)
    sent = asyncio.Event()
    command = _wakeup._command

    async def send_only(connection, *words):
        if words[-1].endswith(hasty.redis_id):
            await connection.send_command(*words)
            sent.set()
            await asyncio.Event().wait()
        return await command(connection, *words)

    monkeypatch.setattr(_wakeup, "_command", send_only)
    giving_up = asyncio.create_task(hasty.result(timeout=30))
    await asyncio.wait_for(sent.wait(), 10)
    reader = client._wakeups._reader
    giving_up.cancel()
    await asyncio.wait({giving_up})
    await redis.set(f"arq:result:{patient.redis_id}", REJECTED)

    assert not reader.is_connected
    assert await waiting == Rejected("no")
