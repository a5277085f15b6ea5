"""The seams: jobs of another source in this worker's slots, refusals, many ends in one call."""

import asyncio

import pytest
from arq.utils import timestamp_ms
from arq.worker import Retry, func

from worker.loop.claims import Claims
from worker.loop.completer import BATCH_MAX, Completer, Completion
from worker.loop.decode import ABORTED
from worker.loop.outcomes import Completed, Failed, RetryLater

from .kit import BlockingJob, eventually, within_deadline


async def double(ctx, number):
    return 2 * number


async def test_a_local_job_has_the_same_context_and_hooks_and_leaves_nothing_in_redis(redis, fleet):
    seen = []

    async def hook(ctx):
        seen.append((ctx["job_id"], ctx["job_try"]))

    hooks = dict.fromkeys(("on_job_start", "on_job_end", "after_job_end"), hook)
    worker = fleet.make(func(double, name="double"), **hooks)
    outcome = await within_deadline(worker.run_local("a", "double", [4], job_try=2))
    assert outcome == Completed(8)
    assert seen == [("a", 2)] * 3
    assert worker.jobs_complete == 1
    assert await redis.keys("*") == []


async def test_a_local_job_takes_a_slot(redis, fleet):
    blocking = BlockingJob()
    worker = fleet.make(blocking.function, max_jobs=1)
    local = worker.run_local("a", "blocking")
    assert worker.free_slots == 0
    with pytest.raises(ValueError, match="no slot is free"):
        worker.run_local("b", "blocking")
    blocking.unblock()
    await within_deadline(local)
    assert worker.free_slots == 1


async def test_what_a_local_job_asks_for_is_the_callers_to_do(redis, fleet):
    async def later(ctx):
        raise Retry(defer=5)

    async def fails(ctx):
        raise RuntimeError("no")

    worker = fleet.make(func(later, name="later"), func(fails, name="fails"))
    assert await within_deadline(worker.run_local("a", "later")) == RetryLater(5000)
    assert isinstance(await within_deadline(worker.run_local("b", "fails")), Failed)
    with pytest.raises(KeyError):
        worker.run_local("c", "unknown")


async def test_a_local_job_that_redis_delivers_meanwhile_runs_once_and_is_recorded(redis, fleet):
    blocking = BlockingJob()
    worker = fleet.start(blocking.function, poll_delay=0.02)
    local = worker.run_local("a", "blocking")
    await blocking.wait_started()
    job = await redis.enqueue_job("blocking", _job_id="a")

    while not worker.claims.held["a"].in_redis:  # noqa: ASYNC110 - the claim comes with the next poll
        await asyncio.sleep(0.01)
    blocking.unblock()
    await within_deadline(local)
    assert await job.result(timeout=30, poll_delay=0.02) == []
    assert blocking.runs == [("a", 1)]


async def test_ends_that_come_together_travel_together_and_none_is_lost(redis):
    calls = []

    async def run(script, keys, args):
        calls.append(args)
        return await script(redis, keys, args)

    count = 2 * BATCH_MAX + 1
    for number in range(count):
        await redis.set(f"arq:in-progress:{number}", "me")
    completer = Completer(Claims("me", "arq:queue", 60), run, lambda _: None)
    ends = [Completion(str(number), 1, "done", b"r%d" % number, 60_000) for number in range(count)]
    await within_deadline(asyncio.gather(*(completer.add(end) for end in ends)))
    assert len(calls) == 3
    results = await redis.mget([f"arq:result:{number}" for number in range(count)])
    assert results == [b"r%d" % number for number in range(count)]


async def test_ends_wait_for_redis_and_keep_their_order(redis):
    answers = [ConnectionError("away"), TimeoutError(), []]
    sent = []

    async def run(script, keys, args):
        sent.append(args)
        answer = answers.pop(0) if answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    completer = Completer(Claims("me", "arq:queue", 60), run, lambda _: None)
    first = completer.add(Completion("a", 1, "done", b""))
    await within_deadline(first)
    assert [args[1] for args in sent] == ["a", "a", "a"]


async def test_a_refusal_is_announced_before_redis_ends_the_job(redis, fleet):
    announced = []

    async def on_refuse(job_id, reason):
        announced.append((job_id, reason, await redis.exists(f"arq:job:{job_id}")))

    await redis.enqueue_job("double", 1, _job_id="a")
    await redis.zadd("arq:abort", {"a": timestamp_ms() + 1})
    worker = fleet.make(func(double, name="double"), burst=True, allow_abort_jobs=True)
    worker.runner.on_refuse = on_refuse
    await within_deadline(worker.main())
    assert announced == [("a", ABORTED, 1)]
    assert not await redis.exists("arq:job:a")


async def test_a_job_whose_refusal_cannot_be_announced_is_delivered_again(redis, fleet, caplog):
    async def on_refuse(job_id, reason):
        raise RuntimeError("postgresql is away")

    await redis.enqueue_job("double", 1, _job_id="a")
    await redis.zadd("arq:abort", {"a": timestamp_ms() + 1})
    worker = fleet.start(func(double, name="double"), allow_abort_jobs=True)
    worker.runner.on_refuse = on_refuse

    async def failed():
        return "job a: the loop failed, the job will be delivered again" in caplog.text

    await eventually(failed)
    assert await redis.exists("arq:job:a")
