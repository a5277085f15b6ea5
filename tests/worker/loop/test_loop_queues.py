"""Several queues in one worker: slots of their own, and nothing else that differs."""

import asyncio
import signal

import pytest
from arq.worker import func

from worker.loop.claims import Claims
from worker.loop.completer import Completer
from worker.loop.completions import Completion

from .kit import BlockingJob, eventually, listening, within_deadline

REPORTS = "arq:queue:reports"


async def double(ctx, number):
    return 2 * number


async def test_fifty_slow_jobs_of_one_queue_keep_none_of_another_waiting(redis, fleet):
    slow = BlockingJob()
    worker = fleet.start(
        slow.function, func(double, name="double"), max_jobs=4, other_queues={REPORTS: 2}
    )
    for number in range(50):
        await redis.enqueue_job("blocking", _queue_name=REPORTS, _job_id=f"slow-{number}")
    await slow.wait_started(2)
    fast = [await redis.enqueue_job("double", number) for number in range(20)]
    answers = [await job.result(timeout=30, poll_delay=0.01) for job in fast]
    assert answers == [2 * number for number in range(20)]
    # Every fast job is done, and of the slow ones the first two still run.
    assert (len(slow.runs), slow.peak) == (2, 2)
    assert (worker.queues[REPORTS].free_count, worker.slots.free_count) == (0, 4)
    slow.unblock()
    await slow.wait_started(50)
    assert slow.peak == 2


async def test_a_job_learns_its_queue_and_its_result_names_it(redis, fleet):
    async def where(ctx):
        return ctx["queue"]

    fleet.start(func(where, name="where"), poll_delay=0.02, other_queues={REPORTS: 1})
    job = await redis.enqueue_job("where", _queue_name=REPORTS)
    assert await job.result(timeout=30, poll_delay=0.01) == REPORTS
    assert (await job.result_info()).queue_name == REPORTS
    assert await (await redis.enqueue_job("where")).result(30, poll_delay=0.01) == "arq:queue"


async def test_an_idle_queue_hears_its_own_bell(redis, fleet):
    fleet.start(func(double, name="double"), poll_delay=60, other_queues={REPORTS: 1})
    await listening(redis, 2)
    job = await redis.enqueue_job("double", 4, _queue_name=REPORTS)
    await redis.zadd(f"{REPORTS}:bell", {"ring": 0})
    assert await job.result(timeout=30, poll_delay=0.01) == 8


async def test_an_abort_reaches_a_job_of_any_queue(redis, fleet):
    slow = BlockingJob()
    options = {"allow_abort_jobs": True, "poll_delay": 0.02}
    worker = fleet.start(slow.function, other_queues={REPORTS: 1}, **options)
    running = await redis.enqueue_job("blocking", _queue_name=REPORTS)
    await slow.wait_started()
    assert await running.abort(timeout=30, poll_delay=0.01)

    async def free():
        return worker.queues[REPORTS].free_count == 1

    await eventually(free)
    assert await redis.zcard(REPORTS) == 0


async def test_a_shutdown_hands_the_jobs_of_every_queue_back(redis, fleet):
    slow = BlockingJob()
    worker = fleet.start(slow.function, other_queues={REPORTS: 1})
    await redis.enqueue_job("blocking", _job_id="a")
    await redis.enqueue_job("blocking", _job_id="b", _queue_name=REPORTS)
    await slow.wait_started(2)
    worker.handle_sig(signal.SIGTERM)
    await within_deadline(worker.close())
    assert await redis.zrange("arq:queue", 0, -1) == [b"a"]
    assert await redis.zrange(REPORTS, 0, -1) == [b"b"]
    assert await redis.exists("arq:retry:a", "arq:retry:b", "arq:in-progress:b") == 0


async def test_a_burst_ends_once_every_queue_is_empty(redis, fleet):
    ran = []

    async def first(ctx):
        ran.append("first")
        await asyncio.sleep(0)
        await ctx["redis"].enqueue_job("second", _queue_name=REPORTS)

    async def second(ctx):
        ran.append("second")

    worker = fleet.make(
        func(first, name="first"),
        func(second, name="second"),
        burst=True,
        poll_delay=0.01,
        other_queues={REPORTS: 1},
    )
    await redis.enqueue_job("first")
    await within_deadline(worker.main())
    assert ran == ["first", "second"]


async def test_a_job_of_another_source_takes_a_slot_of_the_queue_it_names(redis, fleet):
    slow = BlockingJob()
    worker = fleet.make(slow.function, max_jobs=1, other_queues={REPORTS: 1})
    local = worker.run_local("a", "blocking", queue_name=REPORTS)
    assert (worker.queues[REPORTS].free_count, worker.slots.free_count) == (0, 1)
    with pytest.raises(ValueError, match="no slot is free"):
        worker.run_local("b", "blocking", queue_name=REPORTS)
    with pytest.raises(KeyError):
        worker.run_local("b", "blocking", queue_name="arq:queue:unknown")
    slow.unblock()
    await within_deadline(local)


async def test_ends_of_several_queues_travel_in_one_call(redis):
    calls = []

    async def run(script, keys, args):
        calls.append(list(keys))
        return await script(redis, keys, args)

    for job_id, queue in (("a", "arq:queue"), ("b", REPORTS), ("c", "arq:queue")):
        await redis.zadd(queue, {job_id: 1})
        await redis.set(f"arq:in-progress:{job_id}", "me")
    completer = Completer(Claims("me", 60), run, lambda _: None)
    ends = [
        Completion("a", 1, "done", b"1", 60_000),
        Completion("b", 1, "done", b"2", 60_000, queue_name=REPORTS),
        Completion("c", 1, "again", 7),
    ]
    await within_deadline(asyncio.gather(*(completer.add(end) for end in ends)))
    assert calls == [["arq:queue", REPORTS]]
    assert await redis.zcard(REPORTS) == 0
    assert await redis.zrange("arq:queue", 0, -1, withscores=True) == [(b"c", 7.0)]


async def test_leases_of_every_queue_are_renewed_where_the_job_stands(redis, fleet):
    slow = BlockingJob()
    worker = fleet.start(slow.function, other_queues={REPORTS: 1})
    await redis.enqueue_job("blocking", _job_id="a", _queue_name=REPORTS)
    await slow.wait_started()
    before = await redis.zscore(REPORTS, "a")

    async def later():
        await worker.leases.step()
        return await redis.zscore(REPORTS, "a") > before

    await eventually(later)
    assert await redis.zscore("arq:queue", "a") is None
