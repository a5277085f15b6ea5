"""`ring`: many jobs in arq's own layout, in one round trip, as often as one likes."""

import json
import time

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus

from jobs._wire import BODY_KEPT_MS, DELIVERIES_PER_CALL_MAX, Delivery, ring
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
    return round(time.time() * 1000)


async def test_an_arq_client_sees_the_job_as_one_of_its_own(redis):
    before = now_ms()
    assert await ring(redis, [Delivery("a", "transfer_funds", [{"amount": "1.00"}])]) == 1
    job = Job("a", redis, _deserializer=json.loads)
    assert await job.status() == JobStatus.queued
    info = await job.info()
    assert info is not None
    assert (info.function, list(info.args)) == ("transfer_funds", [{"amount": "1.00"}])
    assert before <= info.enqueue_time.timestamp() * 1000 <= now_ms()
    assert 0 < await redis.pttl("arq:job:a") <= BODY_KEPT_MS


async def test_a_job_for_later_is_deferred_and_its_body_outlives_the_wait(redis):
    later = now_ms() + 3_600_000
    await ring(redis, [Delivery("a", "f", run_at_ms=later)])
    assert await Job("a", redis).status() == JobStatus.deferred
    assert await redis.zscore("arq:queue", "a") == later
    assert await redis.pttl("arq:job:a") > BODY_KEPT_MS


async def test_the_time_of_acceptance_is_the_callers(redis):
    await ring(redis, [Delivery("a", "f", enqueued_at_ms=1_700_000_000_000)])
    assert json.loads(await redis.get("arq:job:a"))["et"] == 1_700_000_000_000


async def test_what_is_there_already_is_left_alone(redis):
    await ring(redis, [Delivery("a", "f", [1])])
    body = await redis.get("arq:job:a")
    await redis.zadd("arq:queue", {"a": 42})  # a worker's lease, for instance
    assert await ring(redis, [Delivery("a", "f", [2]), Delivery("b", "f")]) == 1
    assert await redis.get("arq:job:a") == body
    assert await redis.zscore("arq:queue", "a") == 42


async def test_half_of_a_job_is_made_whole(redis):
    await ring(redis, [Delivery("a", "f")])
    await redis.zrem("arq:queue", "a")
    assert await ring(redis, [Delivery("a", "f")]) == 1
    assert await redis.zscore("arq:queue", "a") is not None


async def test_a_kept_result_does_not_stop_a_job_of_the_same_id(redis):
    await redis.set("arq:result:a", b"old")
    assert await ring(redis, [Delivery("a", "f")]) == 1


async def test_one_ring_sounds_for_any_number_of_jobs(redis):
    await ring(redis, [Delivery(str(number), "f") for number in range(100)])
    assert await redis.zrange("arq:queue:bell", 0, -1) == [b"ring"]


async def test_a_bulk_is_bounded_per_call_and_complete(redis):
    count = 2 * DELIVERIES_PER_CALL_MAX + 1
    assert await ring(redis, [Delivery(str(number), "f") for number in range(count)]) == count
    assert await redis.zcard("arq:queue") == count


async def test_nothing_to_deliver_is_no_ring(redis):
    assert await ring(redis, []) == 0
    assert not await redis.exists("arq:queue:bell")


async def test_other_queues_have_their_own_bell(redis):
    await ring(redis, [Delivery("a", "f")], "mail")
    assert await redis.zcard("mail") == 1
    assert await redis.exists("mail:bell")
    assert not await redis.exists("arq:queue:bell")
