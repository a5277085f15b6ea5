"""Callers that wait are woken by Redis itself; where that fails, they look again.

`jobs._client.waiter`, through `jobs._client.follower`.
"""

import asyncio
from datetime import timedelta

import pytest

from jobs import Client, JobNotFoundError, Rejected, Request
from jobs._client import follower, waiter
from jobs._client.waiter import Wakeups
from tests.letters import a_letter

HOUR = timedelta(hours=1)
NEVER_S = 1_000_000
REJECTED = b'{"t":1,"f":"send_letter","a":[],"k":{},"et":1,"s":true,"r":{"rejected":{"code":"no"}}}'


@pytest.fixture
async def client(redis):
    async with Client(redis) as made:
        yield made


@pytest.fixture
def tracked(monkeypatch):
    """Keys whose next change the server was asked to report, as they come."""
    keys = asyncio.Queue()
    track = Wakeups.track

    async def note(self, key):
        works = await track(self, key)
        keys.put_nowait(key)
        return works

    monkeypatch.setattr(Wakeups, "track", note)
    return keys


async def enqueue(client, how_many=1):
    return await client.enqueue_many([Request(a_letter(), delay=HOUR)] * how_many)


async def connections_that_wait(redis):
    """Flags of the connections that track keys (t) or are told of changes (P)."""
    return [one["flags"] for one in await redis.client_list() if {"t", "P"} & set(one["flags"])]


async def wait_for(jobs, tracked):
    """Start waiting, and return once the server has been asked about every job."""
    waiting = [asyncio.create_task(job.result(timeout=30)) for job in jobs]
    for _ in jobs:
        await asyncio.wait_for(tracked.get(), 10)
    return waiting


async def test_a_waiter_is_woken_although_it_never_looks_again(client, redis, tracked, monkeypatch):
    monkeypatch.setattr(follower, "WOKEN_LOOK_AGAIN_S", NEVER_S)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], tracked)
    await redis.set(f"arq:result:{job.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_many_waiters_share_two_connections_and_let_them_go(client, redis, tracked):
    jobs = await enqueue(client, 50)
    waiting = await wait_for(jobs, tracked)
    flags = await connections_that_wait(redis)
    for job in jobs:
        await redis.set(f"arq:result:{job.redis_id}", REJECTED)
    ends = await asyncio.gather(*waiting)

    assert sorted(flags) == ["P", "t"]
    assert ends == [Rejected("no")] * 50
    assert await connections_that_wait(redis) == []


async def test_a_flush_wakes_everyone(client, redis, tracked, monkeypatch):
    monkeypatch.setattr(follower, "WOKEN_LOOK_AGAIN_S", NEVER_S)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], tracked)
    await redis.flushdb()

    with pytest.raises(JobNotFoundError):
        await waiting


async def test_a_waiter_whose_connections_died_connects_again(client, redis, tracked, monkeypatch):
    monkeypatch.setattr(follower, "WOKEN_LOOK_AGAIN_S", NEVER_S)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], tracked)
    await redis.execute_command("CLIENT", "KILL", "TYPE", "PUBSUB")
    await asyncio.wait_for(tracked.get(), 10)
    await redis.set(f"arq:result:{job.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_a_redis_that_does_not_tell_is_asked_again(client, redis, tracked, monkeypatch):
    async def refuse(_):
        raise ConnectionError

    monkeypatch.setattr(Wakeups, "_connect", refuse)
    (job,) = await enqueue(client)
    (waiting,) = await wait_for([job], tracked)
    await redis.set(f"arq:result:{job.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_a_waiter_that_gives_up_does_not_disturb_the_others(client, redis, tracked):
    first, second = await enqueue(client, 2)
    giving_up, waiting = await wait_for([first, second], tracked)
    giving_up.cancel()
    await asyncio.wait({giving_up})
    await redis.set(f"arq:result:{second.redis_id}", REJECTED)

    assert await waiting == Rejected("no")


async def test_a_command_cut_short_leaves_no_answer_for_the_next(
    client, redis, tracked, monkeypatch
):
    patient, hasty = await enqueue(client, 2)
    (waiting,) = await wait_for([patient], tracked)
    sent = asyncio.Event()
    command = waiter._command
    readers = []

    async def send_only(connection, *words):
        if words[-1].endswith(hasty.redis_id):
            readers.append(connection)
            await connection.send_command(*words)
            sent.set()
            await asyncio.Event().wait()
        return await command(connection, *words)

    monkeypatch.setattr(waiter, "_command", send_only)
    giving_up = asyncio.create_task(hasty.result(timeout=30))
    await asyncio.wait_for(sent.wait(), 10)
    giving_up.cancel()
    await asyncio.wait({giving_up})
    await redis.set(f"arq:result:{patient.redis_id}", REJECTED)

    assert not readers[0].is_connected
    assert await waiting == Rejected("no")
