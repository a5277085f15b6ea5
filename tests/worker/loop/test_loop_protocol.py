"""What an arq program sees is what it saw before: constructor, keys, results, mixed fleets."""

import asyncio
import inspect
import json
import os
import subprocess
import sys

import arq.worker
import pytest
from arq import cron
from arq.connections import RedisSettings
from arq.jobs import JobStatus
from arq.worker import Retry, func

from worker.loop import Worker

from .kit import NEVER_S, ROOT, BlockingJob, eventually, listening, within_deadline


async def double(ctx, number):
    return 2 * number


def test_the_constructor_is_arqs():
    assert inspect.signature(Worker) == inspect.signature(arq.worker.Worker)


async def test_every_default_that_a_caller_can_see_is_arqs():
    ours = Worker([double], handle_signals=False)
    theirs = arq.worker.Worker([double], handle_signals=False)
    for name, value in vars(theirs).items():
        if name in {"sem", "functions"}:
            continue
        assert getattr(ours, name) == value, name


async def test_an_arq_client_follows_a_job_from_queue_to_result(redis, fleet):
    blocking = BlockingJob()
    job = await redis.enqueue_job("blocking", 1, _job_id="a")
    assert await job.status() == JobStatus.queued
    fleet.start(blocking.function)
    await blocking.wait_started()
    assert await job.status() == JobStatus.in_progress
    blocking.unblock()
    assert await job.result(timeout=30, poll_delay=0.01) == [1]
    assert await job.status() == JobStatus.complete
    info = await job.result_info()
    assert (info.function, info.args, info.job_try, info.success) == ("blocking", (1,), 1, True)


async def test_a_deferred_job_is_deferred_and_then_runs_without_a_poll(redis, fleet):
    fleet.start(func(double, name="double"), poll_delay=NEVER_S)
    await listening(redis, 1)
    job = await redis.enqueue_job("double", 4, _defer_by=0.3)
    assert await job.status() == JobStatus.deferred
    await redis.zadd("arq:queue:bell", {"ring": 0})
    assert await job.result(timeout=30, poll_delay=0.01) == 8


async def test_results_are_kept_as_long_as_asked(redis, fleet):
    functions = [
        func(double, name="short", keep_result=60),
        func(double, name="never", keep_result=0),
        func(double, name="ever", keep_result_forever=True),
    ]
    for name in ("short", "never", "ever"):
        await redis.enqueue_job(name, 1, _job_id=name)
    await fleet.make(*functions, burst=True).main()
    assert 0 < await redis.pttl("arq:result:short") <= 60_000
    assert not await redis.exists("arq:result:never")
    assert await redis.pttl("arq:result:ever") == -1


async def test_keep_result_forever_survives_a_job_that_runs_out_of_tries(redis, fleet):
    async def retry(ctx):
        raise Retry

    await redis.enqueue_job("retry", _job_id="a")
    worker = fleet.make(
        func(retry, name="retry", max_tries=2), keep_result_forever=True, burst=True
    )
    await worker.main()
    assert worker.jobs_failed == 1
    assert await redis.pttl("arq:result:a") == -1


async def test_serializers_are_the_callers(valkey, redis, fleet):
    redis.job_serializer, redis.job_deserializer = _to_json, json.loads
    job = await redis.enqueue_job("double", 3)
    worker = fleet.make(
        func(double, name="double"),
        burst=True,
        job_serializer=_to_json,
        job_deserializer=json.loads,
    )
    await worker.main()
    assert await job.result() == 6
    assert json.loads(await redis.get(f"arq:result:{job.job_id}"))["r"] == 6


async def test_a_job_that_retries_keeps_its_place_and_counts(redis, fleet):
    tries = []

    async def flaky(ctx):
        tries.append((ctx["job_try"], ctx["score"]))
        if ctx["job_try"] < 3:
            raise Retry
        return "done"

    job = await redis.enqueue_job("flaky")
    score = await redis.zscore("arq:queue", job.job_id)
    await fleet.make(func(flaky, name="flaky"), burst=True).main()
    assert tries == [(1, score), (2, score), (3, score)]
    assert await job.result() == "done"


async def test_a_cron_job_runs_once_on_two_workers(redis, fleet):
    runs = []

    async def tick(ctx):
        runs.append(ctx["job_id"])

    # Far enough ahead of now that no worker fires a second time during the test.
    for _ in range(2):
        schedule = cron(tick, hour=1, run_at_startup=True, job_id="tick")
        fleet.start(cron_jobs=[schedule], poll_delay=0.05)

    async def queue_empty():
        return runs and not await redis.zcard("arq:queue")

    await eventually(queue_empty)
    assert runs == ["tick"]
    assert await redis.pttl("arq:in-progress:tick") > 0


async def test_the_health_key_is_there_while_the_worker_is(redis, fleet):
    worker = fleet.start(double)

    async def healthy():
        return await redis.get("arq:queue:health-check")

    assert b"j_complete=0" in await eventually(healthy)
    await worker.close()
    assert not await healthy()


async def test_nothing_is_left_in_redis_but_results(redis, fleet):
    for number in range(50):
        await redis.enqueue_job("double", number)
    worker = fleet.make(func(double, name="double", keep_result=0), burst=True)
    await worker.main()
    await worker.close()
    assert await redis.keys("*") == []


async def test_a_stock_worker_and_this_one_share_a_queue(valkey, redis, fleet):
    counts = {"stock": 0, "ours": 0}

    def counting(name):
        async def count(ctx):
            counts[name] += 1
            await asyncio.sleep(0.001)

        return func(count, name="count")

    stock = arq.worker.Worker(
        [counting("stock")],
        redis_settings=RedisSettings(port=valkey.port),
        poll_delay=0.01,
        max_jobs=5,
        handle_signals=False,
    )
    stock_main = asyncio.ensure_future(stock.main())
    ours = fleet.start(counting("ours"), max_jobs=1, poll_delay=0.01)
    for _ in range(300):
        await redis.enqueue_job("count")

    async def all_done():
        return not await redis.zcard("arq:queue")

    await eventually(all_done)
    await within_deadline(asyncio.gather(*stock.tasks.values()))
    stock_main.cancel()
    await asyncio.wait({stock_main})
    assert counts["stock"] + counts["ours"] == 300
    assert counts["stock"] > 0
    assert counts["ours"] > 0
    assert (stock.jobs_complete, ours.jobs_complete) == (counts["stock"], counts["ours"])
    await stock.pool.aclose(close_connection_pool=True)


async def test_what_a_stock_worker_runs_is_stepped_over_and_not_moved(redis, fleet):
    await redis.enqueue_job("double", 1, _job_id="stock")
    await redis.set("arq:in-progress:stock", b"1", px=60_000)
    score = await redis.zscore("arq:queue", "stock")
    job = await redis.enqueue_job("double", 2)
    fleet.start(func(double, name="double"), max_jobs=1)
    assert await job.result(timeout=30, poll_delay=0.01) == 4
    assert await redis.zscore("arq:queue", "stock") == score
    assert await redis.get("arq:in-progress:stock") == b"1"


def _to_json(value):
    return json.dumps(value, default=repr).encode()


LOOP_OF = """
import asyncio, sys
from worker.loop import Worker

async def job(ctx): ...

chosen = {chosen}
worker = Worker([job])
assert chosen is None or worker.loop is chosen
print(type(worker.loop).__module__)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "module"),
    [
        ("None", "uvloop"),
        ("asyncio.new_event_loop(); asyncio.set_event_loop(chosen)", "asyncio.unix_events"),
    ],
)
def test_a_program_that_chooses_no_event_loop_gets_uvloop(chosen, module):
    program = LOOP_OF.format(chosen=chosen)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == module


async def test_a_worker_in_a_running_program_uses_the_loop_it_runs_in():
    assert Worker([double], handle_signals=False).loop is asyncio.get_running_loop()
