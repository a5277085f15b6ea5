import asyncio
import uuid

import pytest
from fakeredis import FakeAsyncRedis
from redis.asyncio import Redis

from jobs import Client
from jobs._reports import Progress
from worker.execution.progress import ProgressBoard


@pytest.fixture
def redis():
    return FakeAsyncRedis()


async def said(board):
    await asyncio.gather(*board._writes)


async def test_a_caller_sees_how_far_a_report_is(redis):
    board, job_id = ProgressBoard(redis), uuid.uuid4()

    board.note(Progress(job_id, "reading", 300, 1_000))
    await said(board)
    progress = await Client(redis).handle(job_id).progress()

    assert progress is not None
    assert (progress.done, progress.total, progress.note) == (300, 1_000, "reading")


async def test_steps_in_quick_succession_are_told_once_and_the_last_one_always(redis):
    board, job_id = ProgressBoard(redis), uuid.uuid4()

    for done in range(100):
        board.note(Progress(job_id, "reading", done, 100))
    assert len(board._writes) == 1
    board.note(Progress(job_id, "publishing", 100, 100))
    await said(board)

    progress = await Client(redis).handle(job_id).progress()
    assert progress is not None
    assert progress.note == "publishing"
    assert board._told_at == {}


async def test_a_redis_that_is_away_costs_nothing():
    nowhere = Redis(host="127.0.0.1", port=1)
    board = ProgressBoard(nowhere)

    board.note(Progress(uuid.uuid4(), "reading", 1, 2))
    await said(board)
    await nowhere.aclose()
