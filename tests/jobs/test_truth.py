"""What a client tells of a job is true for good, whatever Redis and PostgreSQL say meanwhile.

`jobs._client.follower`.
"""

import asyncio
import json
import uuid
from datetime import timedelta

import pytest
from sqlalchemy import text

from jobs import (
    Cancel,
    Client,
    JobDeadError,
    JobNotFoundError,
    KeyConflictError,
    ResultTimeoutError,
)
from jobs._client import follower
from jobs._client.sql import JobTable
from jobs._wire import find
from tests.letters import LetterSent, a_letter

HOUR = timedelta(hours=1)
BARELY_S = 0.3

ROW = text("""
    INSERT INTO jobs (id, kind, payload, state, result, finished_at)
    VALUES (:id, 'send_letter', CAST(:payload AS jsonb), :state, CAST(:result AS jsonb),
            CASE :state WHEN 'queued' THEN NULL ELSE clock_timestamp() END)
""")


@pytest.fixture
async def client(letters, redis, sessions):
    async with Client(redis, sessions=sessions) as made:
        yield made


@pytest.fixture
async def redis_only(letters, redis):
    async with Client(redis) as made:
        yield made


@pytest.fixture
def record(sessions):
    """Store the row of a job as a worker would."""

    async def write(job_id, state="queued", result=None):
        row = {
            "id": job_id,
            "payload": '{"address": "a"}',
            "state": state,
            "result": json.dumps(result),
        }
        async with sessions() as session, session.begin():
            await session.execute(ROW, row)

    return write


@pytest.fixture
def tell(redis):
    """Store a job's result in Redis as a worker would."""

    async def write(redis_id, *, error=None, answer=None):
        told = answer if error is None else {"error": error, "message": "told by redis"}
        stored = {"f": "send_letter", "a": [], "k": {}, "s": error is None, "r": told}
        await redis.set(f"arq:result:{redis_id}", json.dumps(stored))

    return write


def sent(job_id):
    return {"letter_id": str(job_id)}


async def test_a_job_that_ends_between_two_looks_is_found(client, redis, record, monkeypatch):
    """It has no row yet when PostgreSQL is read, and is gone from Redis when Redis is read."""
    job = uuid.uuid4()

    async def find_too_late(*call):
        await record(job, "completed", sent(job))
        return await find(*call)

    monkeypatch.setattr(follower, "find", find_too_late)

    assert await client.handle(job).result(timeout=30) == LetterSent(letter_id=job)


async def test_its_status_is_found_too(client, record, monkeypatch):
    job = uuid.uuid4()

    async def find_too_late(*call):
        await record(job, "rejected", {"code": "no"})
        return await find(*call)

    monkeypatch.setattr(follower, "find", find_too_late)

    assert await client.handle(job).status() == "rejected"


@pytest.mark.parametrize(
    "error", ["JobDeadError", "JobCancelledError", "JobConflictError", "CancelledError"]
)
async def test_while_the_row_is_queued_no_end_in_redis_is_told(client, record, tell, error):
    job = uuid.uuid4()
    await record(job)
    await tell(job, error=error)
    handle = client.handle(job)

    assert await handle.status() == "queued"
    with pytest.raises(ResultTimeoutError):
        await handle.result(timeout=BARELY_S)


@pytest.mark.parametrize("error", [None, "JobDeadError", "JobCancelledError", "JobConflictError"])
async def test_a_row_that_says_otherwise_wins(client, record, tell, error):
    job = uuid.uuid4()
    await record(job, "completed", sent(job))
    await tell(job, error=error, answer=sent(uuid.uuid4()))
    handle = client.handle(job)

    assert await handle.status() == "completed"
    assert await handle.result(timeout=30) == LetterSent(letter_id=job)
    assert not await handle.cancel(timeout=BARELY_S)


async def test_where_no_row_is_left_what_redis_keeps_is_told(client, tell):
    job = uuid.uuid4()
    await tell(job, answer=sent(job))

    assert await client.handle(job).result(timeout=30) == LetterSent(letter_id=job)


async def test_a_dead_job_that_is_queued_again_is_not_told_as_dead(redis_only, tell):
    job = await redis_only.enqueue(a_letter(), delay=HOUR)
    await tell(job.redis_id, error="JobDeadError")

    assert await job.status() == "scheduled"
    with pytest.raises(ResultTimeoutError):
        await job.result(timeout=BARELY_S)


@pytest.mark.parametrize("error", ["CancelledError", "TimeoutError"])
async def test_an_end_that_no_row_confirms_is_not_told(redis_only, tell, error):
    """As arq's stock worker writes it when it is aborted."""
    job = uuid.uuid4()
    await tell(job, error=error)
    handle = redis_only.handle(job)

    assert await handle.status() == "queued"
    assert not await handle.cancel(timeout=BARELY_S)
    with pytest.raises(ResultTimeoutError):
        await handle.result(timeout=BARELY_S)


@pytest.mark.parametrize(
    ("error", "raised"), [("JobDeadError", JobDeadError), ("JobConflictError", KeyConflictError)]
)
async def test_an_end_that_a_worker_confirms_is_told(redis_only, tell, error, raised):
    job = uuid.uuid4()
    await tell(job, error=error)

    with pytest.raises(raised):
        await redis_only.handle(job).result(timeout=30)
    assert not await redis_only.handle(job).cancel(timeout=BARELY_S)


async def test_cancelling_is_true_once_and_again_where_the_row_says_so(client, sessions, redis):
    job = await client.enqueue(a_letter(), delay=HOUR)

    assert await job.cancel("enough")
    assert await job.cancel("enough of it")
    assert await Client(sessions=sessions).handle(job.id).cancel()
    assert await job.result(timeout=30) == Cancel("enough")


async def test_cancelling_is_false_while_nobody_confirms_it(redis_only, client, redis):
    """No worker runs: the request stands, and its answer is not known."""
    for one in (redis_only, client):
        waiting = await redis_only.enqueue(a_letter(), delay=HOUR)
        handle = one.handle(waiting.redis_id)

        assert not await handle.cancel(timeout=BARELY_S)
        assert await redis.zscore("arq:abort", waiting.redis_id) is not None


async def test_cancelling_meets_a_row_that_comes_between_two_looks(client, record, monkeypatch):
    job = uuid.uuid4()
    tries = []

    def cancel_too_early(*call):
        cancelled = cancel(*call)
        tries.append(cancelled)
        return cancelled

    async def record_then_look(self, redis_id):
        if tries == [False]:
            await record(job)
        return await look(self, redis_id)

    look, cancel = follower.Follower._row, JobTable.cancel
    monkeypatch.setattr(JobTable, "cancel", cancel_too_early)
    monkeypatch.setattr(follower.Follower, "_row", record_then_look)

    assert await client.handle(job).cancel()
    assert tries == [False, True]


async def test_an_unknown_job_is_not_cancelled_and_leaves_no_request(client, redis_only, redis):
    for one in (client, redis_only):
        with pytest.raises(JobNotFoundError):
            await one.handle(uuid.uuid4()).cancel(timeout=30)
    assert not await redis.exists("arq:abort")


async def test_a_servers_own_timeout_is_not_told_as_the_jobs(client, record, monkeypatch):
    async def time_out(*_):
        raise TimeoutError("the server did not answer")

    monkeypatch.setattr(follower, "find", time_out)

    with pytest.raises(TimeoutError, match="did not answer") as raised:
        await client.handle(uuid.uuid4()).result(timeout=30)
    assert not isinstance(raised.value, ResultTimeoutError)


async def test_results_that_redis_does_not_keep_are_told_from_the_row(client, record, redis):
    job = uuid.uuid4()
    await redis.set(f"arq:job:{job}", "{}")
    await redis.zadd("arq:queue", {str(job): 1})
    waiting = asyncio.create_task(client.handle(job).result(timeout=30))
    await asyncio.sleep(BARELY_S)
    await record(job, "completed", sent(job))
    await redis.delete(f"arq:job:{job}")
    await redis.zrem("arq:queue", str(job))

    assert await waiting == LetterSent(letter_id=job)
