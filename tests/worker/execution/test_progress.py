"""What a handler says of its progress is what a caller reads, at a bounded rate."""

import asyncio
import uuid

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from jobs import Client
from worker.execution import progress as module
from worker.execution.progress import ProgressBoard

DEADLINE_S = 10


class CountingRedis(FakeAsyncRedis):
    """Counts the writes, and lets a test wait for the second."""

    def __init__(self):
        super().__init__()
        self.writes = 0
        self.written_twice = asyncio.Event()

    async def set(self, *args, **kwargs):
        written = await super().set(*args, **kwargs)
        self.writes += 1
        if self.writes == 2:
            self.written_twice.set()
        return written


@pytest.fixture
def redis():
    return CountingRedis()


async def read(redis, job_id):
    return await Client(redis).handle(job_id).progress()


async def test_a_caller_sees_how_far_a_job_is(redis):
    board, job_id = ProgressBoard(redis), uuid.uuid4()

    board.of(job_id)(300, 1_000, "reading")
    await board.flush()

    progress = await read(redis, job_id)
    assert (progress.done, progress.total, progress.note) == (300, 1_000, "reading")


async def test_a_note_is_bounded_and_whatever_text_it_is(redis):
    board, job_id = ProgressBoard(redis), uuid.uuid4()

    board.of(job_id)(1, 2, "\udcff\x00" + "x" * 1_000_000)
    await board.flush()

    assert len((await read(redis, job_id)).note) == module.NOTE_CHARACTERS_MAX


async def test_a_job_that_does_not_know_its_total_leaves_it_out(redis):
    board, job_id = ProgressBoard(redis), uuid.uuid4()

    board.of(job_id)(7)
    await board.flush()

    assert (await read(redis, job_id)).total is None


async def test_steps_in_quick_succession_are_two_writes_and_the_last_one_is_seen(
    redis, monkeypatch
):
    monkeypatch.setattr(module, "INTERVAL_S", 0.05)
    board, job_id = ProgressBoard(redis), uuid.uuid4()

    show = board.of(job_id)
    for done in range(1, 101):
        show(done, 100)
    async with asyncio.timeout(DEADLINE_S):
        await redis.written_twice.wait()
    await board.flush()

    assert (await read(redis, job_id)).done == 100
    assert redis.writes == 2


async def test_a_redis_that_is_away_costs_nothing():
    nowhere = Redis(host="127.0.0.1", port=1)
    board = ProgressBoard(nowhere)

    board.of(uuid.uuid4())(1, 2)
    await board.flush()
    await nowhere.aclose()
