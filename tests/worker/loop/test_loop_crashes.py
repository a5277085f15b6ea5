"""Jobs that end their process: their claims are counted, they run alone, and others get through."""

import asyncio
import sys

import pytest
from arq.jobs import Job
from arq.utils import timestamp_ms
from arq.worker import JobExecutionFailed, Retry, RetryJob, func

from worker.loop import suspects
from worker.loop.outcomes import Completed, HandBack

from .kit import BlockingJob, ShortLeaseWorker, eventually, within_deadline


async def crashes_of(ctx):
    return ctx["crashes"]


CRASHES_OF = func(crashes_of, name="crashes_of")


async def crashed(redis, job_id, times=1):
    """Leave a job as a process leaves it that dies while it runs."""
    await redis.set(f"arq:claims:{job_id}", times)


async def ring(redis):
    await redis.zadd("arq:queue:bell", {"ring": 0})


async def test_a_job_that_has_never_crashed_says_so_and_leaves_no_count(redis, fleet):
    job = await redis.enqueue_job("crashes_of")
    worker = fleet.make(CRASHES_OF, burst=True)
    await worker.main()
    assert await job.result() == 0
    assert not await redis.keys("arq:claims:*")


async def test_a_running_job_is_counted_where_a_crash_cannot_erase_it(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    fleet.start(blocking.function)
    await blocking.wait_started()
    assert await redis.get("arq:claims:a") == b"1"
    assert await redis.ttl("arq:claims:a") > 0


async def test_after_kill_9_a_job_knows_how_many_processes_died_under_it(redis, fleet, processes):
    for died in (1, 2):
        if died == 1:
            await redis.enqueue_job("block", _job_id="a")
        process = processes(LEASE_S="1")

        async def runs():
            return await redis.llen("test:runs") == died  # noqa: B023 - awaited in this turn

        await eventually(runs)
        process.end()
        assert await redis.get("arq:claims:a") == b"%d" % died

    fleet.start(func(crashes_of_any, name="block"), cls=ShortLeaseWorker, poll_delay=0.05)
    assert await Job("a", redis).result(timeout=30, poll_delay=0.02) == 2
    assert not await redis.exists("arq:claims:a")


async def crashes_of_any(ctx, *args):
    return ctx["crashes"]


@pytest.mark.parametrize("end", ["return", "raise", "retry", "run again"])
async def test_any_end_of_a_run_clears_the_count(redis, fleet, end):
    seen = []

    async def work(ctx):
        seen.append(ctx["crashes"])
        if len(seen) == 1:
            if end == "retry":
                raise Retry
            if end == "run again":
                raise RetryJob
        if end == "raise":
            raise RuntimeError(end)

    await redis.enqueue_job("work", _job_id="a")
    await crashed(redis, "a", 2)
    worker = fleet.make(func(work, name="work"), burst=True)
    await worker.main()
    assert seen == ([2, 0] if end in {"retry", "run again"} else [2])
    assert not await redis.exists("arq:claims:a")


async def test_a_suspect_runs_alone_and_new_jobs_wait_for_it(redis, fleet):
    first, suspect = BlockingJob(), BlockingJob()
    late = BlockingJob()
    await redis.enqueue_job("first")
    worker = fleet.start(
        func(first.function.coroutine, name="first"),
        func(suspect.function.coroutine, name="suspect"),
        func(late.function.coroutine, name="late"),
        cls=ShortLeaseWorker,
        poll_delay=0.02,
    )
    await first.wait_started()
    await crashed(redis, "s")
    await redis.enqueue_job("suspect", _job_id="s")

    async def waits():
        return "s" in worker.claims.held

    await eventually(waits)
    await redis.enqueue_job("late")
    await ring(redis)
    held_until = await redis.zscore("arq:queue", "s")

    async def renewed():
        return await redis.zscore("arq:queue", "s") > held_until

    await eventually(renewed)  # many polls later: neither has started
    assert (suspect.runs, late.runs) == ([], [])
    assert await redis.get("arq:claims:s") == b"1"  # a crash now would not be the suspect's
    first.unblock()
    await suspect.wait_started()
    assert await redis.get("arq:claims:s") == b"2"
    assert (worker.free_slots, late.runs) == (0, [])
    suspect.unblock()
    await late.wait_started()
    late.unblock()


async def test_the_lease_of_a_suspect_that_runs_is_longer_with_each_that_lapsed(redis, fleet):
    class Brief(ShortLeaseWorker):
        lease_s = 1.0

    suspect = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="s")
    await crashed(redis, "s", 40)
    fleet.start(suspect.function, cls=Brief, poll_delay=0.02)
    await suspect.wait_started()
    assert await redis.pttl("arq:in-progress:s") > 10_000
    claimed_until = await redis.zscore("arq:queue", "s")

    async def renewed():
        return await redis.zscore("arq:queue", "s") > claimed_until

    await eventually(renewed)
    assert 10_000 < await redis.pttl("arq:in-progress:s") <= 16_000
    suspect.unblock()


async def test_suspects_run_one_after_the_other_and_each_gets_through(redis, fleet):
    running, peak = 0, 0

    async def work(ctx):
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        await asyncio.sleep(0)
        running -= 1
        return ctx["crashes"]

    jobs = [await redis.enqueue_job("work") for _ in range(20)]
    for job in jobs:
        await crashed(redis, job.job_id)
    fleet.start(func(work, name="work"))
    assert [await job.result(timeout=30, poll_delay=0.02) for job in jobs] == [1] * 20
    assert peak == 1


async def test_a_suspect_that_waits_in_vain_goes_back_with_its_count_and_the_worker_goes_on(
    redis, fleet, monkeypatch
):
    monkeypatch.setattr(suspects, "ALONE_WAIT_S", 0.05)
    blocking = BlockingJob()
    await redis.enqueue_job("blocking")
    fleet.start(blocking.function, CRASHES_OF, poll_delay=0.02)
    await blocking.wait_started()
    await crashed(redis, "s", 2)
    await redis.enqueue_job("crashes_of", _job_id="s")
    now_ms = timestamp_ms()

    async def put_back():
        async with redis.pipeline(transaction=True) as pipe:
            pipe.exists("arq:in-progress:s")
            pipe.zscore("arq:queue", "s")
            leased, score = await pipe.execute()
        return not leased and score > now_ms + 1_000

    await eventually(put_back)
    assert await redis.get("arq:claims:s") == b"2"
    assert not await redis.exists("arq:retry:s")
    # This process rests from suspects, even if they are due, and takes other jobs.
    await redis.zadd("arq:queue", {"s": 1})
    other = await redis.enqueue_job("crashes_of")
    assert await other.result(timeout=30, poll_delay=0.02) == 0
    assert await redis.zscore("arq:queue", "s") == 1
    # Another process, which is idle, takes it.
    fleet.start(CRASHES_OF, poll_delay=0.02)
    assert await Job("s", redis).result(timeout=30, poll_delay=0.02) == 2
    blocking.unblock()


@pytest.mark.parametrize("how", ["drain", "stop"])
async def test_a_worker_that_stops_gives_a_waiting_suspect_back_with_its_count(redis, fleet, how):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="b")
    worker = fleet.start(blocking.function, CRASHES_OF, poll_delay=0.02, job_completion_wait=60)
    worker.main_task = fleet.mains[-1]
    await blocking.wait_started()
    await crashed(redis, "s")
    await redis.enqueue_job("crashes_of", _job_id="s")

    async def waits():
        return "s" in worker.claims.held

    await eventually(waits)
    if how == "drain":
        worker.handle_sig_wait_for_completion(15)

        async def given_back():
            return not await redis.exists("arq:in-progress:s")

        await eventually(given_back)
        blocking.unblock()
        await asyncio.wait({fleet.mains[-1]})
    else:
        worker.handle_sig(15)
        await asyncio.wait({fleet.mains[-1]})
    await within_deadline(worker.close())
    assert await redis.get("arq:claims:s") == b"1"
    assert await redis.zscore("arq:queue", "s") <= timestamp_ms()
    assert not await redis.exists("arq:in-progress:s", "arq:retry:s", "arq:claims:b")


async def test_a_job_that_is_handed_back_by_a_shutdown_did_not_crash(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.start(blocking.function)
    await blocking.wait_started()
    worker.handle_sig(15)
    await within_deadline(worker.close())
    assert await redis.zscore("arq:queue", "a")
    assert not await redis.exists("arq:claims:a")


async def test_a_job_that_is_put_back_for_another_worker_keeps_only_real_crashes(redis, fleet):
    await redis.enqueue_job("newer", _job_id="fresh")
    await redis.enqueue_job("newer", _job_id="suspect")
    await crashed(redis, "suspect", 2)
    fleet.start(CRASHES_OF)

    async def put_back():
        held = await redis.exists("arq:in-progress:fresh", "arq:in-progress:suspect")
        return not held and await redis.exists("arq:unknown:fresh", "arq:unknown:suspect") == 2

    await eventually(put_back)
    assert await redis.mget("arq:claims:fresh", "arq:claims:suspect") == [None, b"2"]


async def test_a_local_suspect_runs_alone_too(redis, fleet, monkeypatch):
    monkeypatch.setattr(suspects, "ALONE_WAIT_S", 0.05)
    blocking = BlockingJob()
    worker = fleet.make(blocking.function, CRASHES_OF)
    beside = worker.run_local("b", "blocking")
    await blocking.wait_started()
    assert await within_deadline(worker.run_local("s", "crashes_of", crashes=1)) == HandBack()
    blocking.unblock()
    await within_deadline(beside)
    alone = worker.run_local("s", "crashes_of", crashes=1)
    assert worker.free_slots == 0
    assert await within_deadline(alone) == Completed(1)
    assert worker.free_slots == worker.max_jobs


async def test_a_count_that_is_none_does_not_make_a_suspect(redis, fleet):
    await redis.enqueue_job("crashes_of", _job_id="a")
    await redis.enqueue_job("crashes_of", _job_id="b")
    await redis.set("arq:claims:a", "nan")
    await redis.rpush("arq:claims:b", "x")
    worker = fleet.make(CRASHES_OF, burst=True)
    await within_deadline(worker.main())
    assert [await Job(id_, redis).result() for id_ in "ab"] == [0, 0]


class Panic(BaseException):
    """What pyo3 raises for a panic in Rust."""


async def exits():
    raise SystemExit(3)


async def raises_in_a_task(ctx):
    await asyncio.create_task(exits())


async def raises_in_a_group(ctx):
    async with asyncio.TaskGroup() as group:
        group.create_task(exits())


async def raises_in_a_task_that_nobody_awaits(ctx):
    task = asyncio.create_task(exits())
    await asyncio.wait({task})
    return type(task.exception()).__name__


async def raises_in_a_thread(ctx):
    await asyncio.to_thread(sys.exit, 3)


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        Panic("rust"),
        BaseExceptionGroup("g", [Panic()]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_nothing_that_a_job_raises_leaves_the_loop(redis, fleet, error):
    async def raises(ctx):
        raise error

    job = await redis.enqueue_job("raises")
    beside = await redis.enqueue_job("crashes_of")
    worker = fleet.make(func(raises, name="raises"), CRASHES_OF, burst=True)
    await worker.main()
    with pytest.raises(JobExecutionFailed, match="the job"):
        await job.result()
    assert await beside.result() == 0
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 1)


@pytest.mark.parametrize(
    "function", [raises_in_a_task, raises_in_a_group, raises_in_a_thread], ids=lambda f: f.__name__
)
async def test_an_exit_in_a_task_of_a_job_is_the_jobs_failure(redis, fleet, function):
    await redis.enqueue_job("work", _job_id="a")
    worker = fleet.make(func(function, name="work"), burst=True, job_serializer=repr_of)
    await worker.main()
    assert worker.jobs_failed == 1
    assert b"sys.exit(3)" in await redis.get("arq:result:a")


def repr_of(value):
    return repr(getattr(value["r"], "exceptions", value["r"])).encode()


async def test_an_exit_in_a_task_that_nobody_awaits_does_not_leave_the_loop_either(redis, fleet):
    job = await redis.enqueue_job("work")
    worker = fleet.make(func(raises_in_a_task_that_nobody_awaits, name="work"), burst=True)
    await worker.main()
    assert await job.result() == "JobExecutionFailed"


async def test_an_exit_outside_of_jobs_is_none_of_the_loops_business(redis, fleet):
    worker = fleet.make(CRASHES_OF, burst=True)
    await worker.main()
    inner = exits()
    task = asyncio.create_task(inner)
    assert task.get_coro() is inner
    task.cancel()
    await asyncio.wait({task})
