"""`jobs._wire`: jobs in arq's own layout, in one round trip, as often as one likes."""

import json
import time
from dataclasses import replace
from unittest.mock import ANY

import pytest
from arq import constants
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus

from jobs import _queue, _wire
from jobs._wire import (
    BODY_KEPT_MS,
    JOBS_PER_CALL_MAX,
    Found,
    QueuedJob,
    abort,
    create,
    find,
    put,
    queued_job,
)
from worker.dev.servers import ValkeyServer


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with ValkeyServer(tmp_path_factory.mktemp("queue") / "valkey", append_only=False) as server:
        yield server


@pytest.fixture
async def redis(valkey):
    client = ArqRedis(host="127.0.0.1", port=valkey.port, job_deserializer=json.loads)
    await client.flushall()
    yield client
    await client.aclose(close_connection_pool=True)


def now_ms():
    return time.time_ns() // 1_000_000


def many(count):
    return [QueuedJob(str(number), "f") for number in range(count)]


def test_the_keys_are_arqs():
    assert constants.default_queue_name == _queue.QUEUE
    assert constants.job_key_prefix == _wire.JOB_PREFIX
    assert constants.result_key_prefix == _wire.RESULT_PREFIX
    assert constants.in_progress_key_prefix == _wire.IN_PROGRESS_PREFIX
    assert constants.abort_jobs_ss == _wire.ABORTS


@pytest.mark.parametrize("way_in", [put, create])
async def test_an_arq_client_sees_the_job_as_one_of_its_own(redis, way_in):
    before = now_ms()
    await way_in(redis, [QueuedJob("a", "send_letter", '{"pages":2}')])
    job = Job("a", redis, _deserializer=json.loads)
    assert await job.status() == JobStatus.queued
    info = await job.info()
    assert info is not None
    assert (info.function, list(info.args)) == ("send_letter", [{"pages": 2}])
    assert before <= info.enqueue_time.timestamp() * 1000 <= now_ms()


@pytest.mark.parametrize("way_in", [put, create])
async def test_a_job_without_its_payload_has_no_arguments(redis, way_in):
    await way_in(redis, [QueuedJob("a", 'a "kind"')])
    assert json.loads(await redis.get("arq:job:a"))["f"] == 'a "kind"'
    assert json.loads(await redis.get("arq:job:a"))["a"] == []


async def test_a_personal_payload_is_not_sent_nor_is_one_of_an_unknown_kind(letters, redis):
    kinds = ("send_letter", "send_card", "unheard_of")
    await put(redis, [queued_job(kind, kind, '{"x":1}', None) for kind in kinds])
    sent = [json.loads(await redis.get(f"arq:job:{kind}"))["a"] for kind in kinds]
    assert sent == [[{"x": 1}], [], []]


async def test_a_job_for_later_is_deferred_and_its_body_outlives_the_wait(redis):
    later = now_ms() + 3_600_000
    await put(redis, [QueuedJob("a", "f", run_at_ms=later)])
    assert await Job("a", redis).status() == JobStatus.deferred
    assert await redis.zscore("arq:queue", "a") == later
    assert await redis.pttl("arq:job:a") > BODY_KEPT_MS


async def test_the_time_of_acceptance_is_the_callers(redis):
    await put(redis, [QueuedJob("a", "f", enqueued_at_ms=1_700_000_000_000)])
    assert json.loads(await redis.get("arq:job:a"))["et"] == 1_700_000_000_000


async def test_what_is_there_already_is_left_alone(redis):
    await put(redis, [QueuedJob("a", "f", "1")])
    body = await redis.get("arq:job:a")
    await redis.zadd("arq:queue", {"a": 42})  # a worker's lease, for instance
    assert await put(redis, [QueuedJob("a", "f", "2"), QueuedJob("b", "f")]) == 1
    assert await create(redis, [QueuedJob("a", "f", "3"), QueuedJob("c", "f")]) == [body, None]
    assert await redis.get("arq:job:a") == body
    assert await redis.zscore("arq:queue", "a") == 42


@pytest.mark.parametrize("way_in", [put, create])
async def test_half_of_a_job_is_made_whole(redis, way_in):
    await way_in(redis, [QueuedJob("a", "f")])
    await redis.zrem("arq:queue", "a")
    await way_in(redis, [QueuedJob("a", "f")])
    assert await redis.zscore("arq:queue", "a") is not None


async def test_the_body_of_a_job_in_postgresql_expires(redis):
    await put(redis, [QueuedJob("a", "f")])
    assert 0 < await redis.pttl("arq:job:a") <= BODY_KEPT_MS


async def test_the_body_of_a_job_that_redis_alone_has_stays_until_the_job_ends(redis):
    await create(redis, [QueuedJob("a", "f")])
    assert await redis.pttl("arq:job:a") == -1


async def test_a_kept_result_does_not_stop_a_job_in_postgresql(redis):
    await redis.set("arq:result:a", b"old")
    assert await put(redis, [QueuedJob("a", "f")]) == 1


async def test_a_kept_result_is_the_job_where_redis_alone_has_it(redis):
    await redis.set("arq:result:a", b"old")
    assert await create(redis, [QueuedJob("a", "f")]) == [b"old"]
    assert await redis.zscore("arq:queue", "a") is None
    assert not await redis.exists("arq:job:a")


@pytest.mark.parametrize("way_in", [put, create])
async def test_one_ring_sounds_for_any_number_of_jobs(redis, way_in):
    await way_in(redis, many(100))
    assert await redis.zrange("arq:queue:bell", 0, -1) == [b"ring"]


@pytest.mark.parametrize("way_in", [put, create])
async def test_jobs_are_queued_even_where_the_bell_cannot_be_rung(redis, way_in):
    await redis.set("arq:queue:bell", "text")
    await way_in(redis, many(2))
    assert await redis.zcard("arq:queue") == 2


async def test_a_bulk_is_bounded_per_call_and_complete(redis):
    count = 2 * JOBS_PER_CALL_MAX + 1
    assert await put(redis, many(count)) == count
    assert await redis.zcard("arq:queue") == count
    assert len(await create(redis, many(count))) == count


@pytest.mark.parametrize("way_in", [put, create])
async def test_nothing_to_send_is_no_ring(redis, way_in):
    assert not await way_in(redis, [])
    assert not await redis.exists("arq:queue:bell")


@pytest.mark.parametrize("way_in", [put, create])
async def test_other_queues_have_their_own_bell(redis, way_in):
    await way_in(redis, [QueuedJob("a", "f")], "mail")
    assert await redis.zcard("mail") == 1
    assert await redis.exists("mail:bell")
    assert not await redis.exists("arq:queue:bell")


async def test_a_job_is_found_where_it_is(redis):
    nowhere = Found(result=None, running=False, run_at_ms=None, has_body=False, now_ms=ANY)
    assert await find(redis, "a") == nowhere
    assert not nowhere.is_known
    await put(redis, [QueuedJob("a", "f", run_at_ms=7)])
    assert await find(redis, "a") == replace(nowhere, run_at_ms=7, has_body=True)
    await redis.set("arq:in-progress:a", b"a worker")
    await redis.set("arq:result:b", b"done")
    assert (await find(redis, "a")).running
    assert (await find(redis, "b")).result == b"done"
    assert not (await find(redis, "b")).is_waiting
    assert abs((await find(redis, "b")).now_ms - now_ms()) < 60_000


async def test_an_abort_brings_waiting_jobs_forward_and_queues_no_others(redis):
    await put(redis, [QueuedJob("a", "f", run_at_ms=now_ms() + 3_600_000)])
    await abort(redis, ["a", "gone"])
    assert await redis.zrange("arq:abort", 0, -1) == [b"a", b"gone"]
    assert await redis.zrange("arq:queue", 0, -1, withscores=True) == [(b"a", 1.0)]


async def test_nothing_to_abort_is_no_request(redis):
    await abort(redis, [])
    assert not await redis.exists("arq:abort")
