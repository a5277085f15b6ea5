"""What ends an arq worker or loses an arq job, and does neither here."""

import asyncio
import logging

import pytest
from arq.utils import timestamp_ms
from arq.worker import FailedJobs, JobExecutionFailed, Retry, func

from worker.loop import refusals, runner
from worker.loop.aborts import ABORT_SKEW_MS

from .kit import BlockingJob, eventually, within_deadline


async def fine(ctx):
    return "fine"


FINE = func(fine, name="fine")


async def broken_hook(ctx):
    raise RuntimeError("the hook is broken")


@pytest.mark.parametrize("hook", ["on_job_end", "after_job_end"])
async def test_a_hook_that_fails_after_a_job_changes_nothing(redis, fleet, caplog, hook):
    jobs = [await redis.enqueue_job("fine") for _ in range(3)]
    worker = fleet.make(FINE, burst=True, **{hook: broken_hook})
    await worker.main()
    assert [await job.result() for job in jobs] == ["fine"] * 3
    assert worker.jobs_complete == 3
    assert "the hook is broken" in caplog.text


async def test_a_job_whose_start_hook_fails_has_not_run_and_is_tried_again(
    redis, fleet, caplog, monkeypatch
):
    monkeypatch.setattr(runner, "HOOK_RETRY_S", 0.01)
    ran = []

    async def start_hook(ctx):
        if ctx["job_try"] == 1:
            await broken_hook(ctx)

    async def work(ctx):
        ran.append(ctx["job_try"])

    await redis.enqueue_job("work")
    worker = fleet.make(func(work, name="work"), burst=True, on_job_start=start_hook)
    await worker.main()
    assert ran == [2]
    assert worker.jobs_complete == 1


async def test_a_start_hook_that_always_fails_ends_the_job_after_its_tries(
    redis, fleet, monkeypatch
):
    monkeypatch.setattr(runner, "HOOK_RETRY_S", 0.01)
    job = await redis.enqueue_job("fine")
    worker = fleet.make(FINE, burst=True, on_job_start=broken_hook, max_tries=2)
    await worker.main()
    with pytest.raises(JobExecutionFailed, match="max 2 retries exceeded"):
        await job.result()


async def test_an_unknown_function_is_put_back_for_a_worker_that_knows_it(redis, fleet, caplog):
    old = fleet.start(FINE)
    job = await redis.enqueue_job("newer", _job_id="a")

    async def put_back():
        return await redis.exists("arq:unknown:a") and not await redis.exists("arq:in-progress:a")

    await eventually(put_back)
    assert "job a, function 'newer' not found: put back" in caplog.text
    assert not await redis.exists("arq:retry:a")
    await old.close()
    fleet.start(func(fine, name="newer"))
    assert await job.result(timeout=30, poll_delay=0.02) == "fine"
    assert (await job.result_info()).job_try == 1
    assert not await redis.exists("arq:unknown:a")


async def test_a_job_that_no_worker_knows_for_a_day_ends_as_failed(redis, fleet, caplog):
    job = await redis.enqueue_job("newer", 1, _job_id="a")
    day_ms = refusals.UNKNOWN_AGE_MAX_MS
    await redis.set("arq:unknown:a", timestamp_ms() - day_ms)
    fleet.start(FINE)
    with pytest.raises(JobExecutionFailed, match="function 'newer' not found"):
        await job.result(timeout=30, poll_delay=0.02)
    info = await job.result_info()
    assert (info.function, info.args) == ("newer", (1,))
    assert "no worker knew it in time" in caplog.text


async def test_an_unknown_job_ends_before_its_body_expires_and_not_namelessly_after(redis, fleet):
    job = await redis.enqueue_job("newer", _expires=1.5)
    fleet.start(FINE)
    with pytest.raises(JobExecutionFailed, match="function 'newer' not found"):
        await job.result(timeout=30, poll_delay=0.02)


async def test_a_burst_run_passes_an_unknown_job_over_and_leaves_it_in_the_queue(redis, fleet):
    await redis.enqueue_job("newer", _job_id="a")
    await redis.enqueue_job("fine")
    worker = fleet.make(FINE, burst=True)
    with pytest.raises(FailedJobs, match="function 'newer' not found"):
        await within_deadline(worker.run_check())
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 1)
    assert await redis.zscore("arq:queue", "a")
    assert await redis.exists("arq:job:a")


async def test_an_abort_that_is_older_than_the_job_does_not_end_it(redis, fleet):
    await redis.zadd("arq:abort", {"a": timestamp_ms() - 2 * ABORT_SKEW_MS})
    job = await redis.enqueue_job("fine", _job_id="a")
    worker = fleet.make(FINE, burst=True, allow_abort_jobs=True)
    await worker.main()
    assert await job.result() == "fine"
    assert not await redis.exists("arq:abort")


async def test_an_abort_from_a_clock_that_is_a_little_behind_counts(redis, fleet):
    job = await redis.enqueue_job("fine", _job_id="a")
    await redis.zadd("arq:abort", {"a": timestamp_ms() - ABORT_SKEW_MS + 1_000})
    worker = fleet.make(FINE, burst=True, allow_abort_jobs=True)
    await worker.main()
    with pytest.raises(asyncio.CancelledError):
        await job.result()


async def test_old_aborts_of_jobs_that_are_gone_are_forgotten_and_others_are_not(redis, fleet):
    await redis.enqueue_job("fine", _job_id="waits", _defer_by=60)
    hour_ago = timestamp_ms() - 3_600_000
    await redis.zadd("arq:abort", {"gone": hour_ago, "waits": hour_ago})
    fleet.start(FINE, allow_abort_jobs=True, poll_delay=0.02)

    async def forgotten():
        return await redis.zrange("arq:abort", 0, -1) == [b"waits"]

    await eventually(forgotten)


async def test_a_running_job_is_aborted(redis, fleet):
    blocking = BlockingJob()
    job = await redis.enqueue_job("blocking")
    worker = fleet.start(blocking.function, allow_abort_jobs=True, poll_delay=0.02)
    await blocking.wait_started()
    assert await job.abort(timeout=30, poll_delay=0.02) is True
    assert worker.jobs_failed == 1
    assert await redis.zcard("arq:queue") == 0


async def test_a_queued_job_is_aborted_before_it_starts(redis, fleet):
    job = await redis.enqueue_job("fine", _defer_by=3600)
    with pytest.raises(asyncio.TimeoutError):
        await job.abort(timeout=0)
    worker = fleet.make(FINE, burst=True, allow_abort_jobs=True)
    await worker.main()
    assert (worker.jobs_complete, worker.jobs_failed) == (0, 1)
    with pytest.raises(asyncio.CancelledError):
        await job.result()


async def test_an_abort_of_a_running_job_of_another_life_is_ignored(redis, fleet):
    blocking = BlockingJob()
    job = await redis.enqueue_job("blocking", 1, _job_id="a")
    fleet.start(blocking.function, allow_abort_jobs=True, poll_delay=0.02)
    await blocking.wait_started()
    await redis.zadd("arq:abort", {"a": timestamp_ms() - 10_000})

    async def answered():
        return not await redis.exists("arq:abort")

    await eventually(answered)
    blocking.unblock()
    assert await job.result(timeout=30, poll_delay=0.02) == [1]


async def test_a_result_whose_repr_fails_does_not_fail_the_job(redis, fleet, caplog):
    class Shy(dict[str, int]):
        def __repr__(self):
            raise RuntimeError("do not look")

    async def shy(ctx):
        return Shy(a=1)

    caplog.set_level(logging.INFO)
    await redis.enqueue_job("shy")
    worker = fleet.make(func(shy, name="shy", keep_result=0), burst=True)
    await worker.main()
    assert worker.jobs_complete == 1


async def test_a_job_of_one_hour_does_not_stretch_the_lease_of_others(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.start(blocking.function, func(fine, name="slow", timeout=3600))
    await blocking.wait_started()
    assert await redis.pttl("arq:in-progress:a") <= worker.lease_s * 1000


async def test_a_timeout_ends_a_job_and_frees_its_slot(redis, fleet):
    blocking = BlockingJob()
    job = await redis.enqueue_job("blocking")
    worker = fleet.start(blocking.function, job_timeout=0.05, max_jobs=1)
    with pytest.raises(TimeoutError):
        await job.result(timeout=30, poll_delay=0.02)
    assert worker.free_slots == 1
    assert blocking.running == 0


async def test_a_fault_of_the_loop_itself_leaves_the_job_to_be_delivered_again(
    redis, fleet, caplog, monkeypatch
):
    worker = fleet.make(FINE, burst=False)
    monkeypatch.setattr(worker.runner, "perform", None)
    fleet.mains.append(asyncio.ensure_future(worker.main()))
    await redis.enqueue_job("fine", _job_id="a")

    async def let_go():
        return "the loop failed" in caplog.text and not worker.claims.held

    await eventually(let_go)
    assert await redis.exists("arq:job:a")
    assert not fleet.mains[-1].done()


async def test_a_failed_job_is_one_line_of_error_with_its_exception(redis, fleet, caplog):
    """What collectors of errors report; docs/loop.md has the recipe for one that leaves it out."""

    async def fails(ctx):
        raise ValueError("no")

    await redis.enqueue_job("fails")
    worker = fleet.make(func(fails, name="fails"), burst=True)
    await worker.main()
    (line,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert line.name == "arq.worker"
    assert line.exc_info
    assert line.exc_info[0] is ValueError


async def test_a_job_that_leaves_does_not_take_the_worker_with_it(redis, fleet):
    async def leaves(ctx):
        raise SystemExit(3)

    job = await redis.enqueue_job("leaves")
    worker = fleet.make(func(leaves, name="leaves"), burst=True)
    await worker.main()
    with pytest.raises(JobExecutionFailed, match=r"the job called sys\.exit\(3\)"):
        await job.result()


async def test_a_retry_that_is_due_before_the_last_hook_has_ended_waits_for_it(redis, fleet):
    tries, hooked, let_hook_end = [], asyncio.Event(), asyncio.Event()

    async def retry_once(ctx):
        tries.append(ctx["job_try"])
        if ctx["job_try"] == 1:
            raise Retry

    async def slow_hook(ctx):
        if ctx["job_try"] == 1:
            hooked.set()
            await let_hook_end.wait()

    job = await redis.enqueue_job("work", _job_id="a")
    function = func(retry_once, name="work")
    fleet.start(function, after_job_end=slow_hook, poll_delay=0.02)
    await within_deadline(hooked.wait())

    async def put_off():
        return await redis.zscore("arq:queue", "a") > job_score + 50

    job_score = (await job.info()).enqueue_time.timestamp() * 1000
    await eventually(put_off)
    let_hook_end.set()
    await job.result(timeout=30, poll_delay=0.02)
    assert tries == [1, 2]
