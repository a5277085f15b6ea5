"""Shutdown: claim no more, let finish what can, hand back the rest without spending a try."""

import asyncio
import signal

from arq.worker import func

from jobs._wire import QueuedJob, put
from worker.loop import Worker
from worker.loop import worker as worker_module

from .kit import JSON, NEVER_S, BlockingJob, eventually, listening, within_deadline
from .program import OPEN, RUNS


async def runs(redis, count):
    async def enough():
        lines = await redis.lrange(RUNS, 0, -1)
        return [line.decode().split() for line in lines] if len(lines) >= count else None

    return await eventually(enough)


async def handed_back(redis, job_id):
    assert not await redis.exists(f"arq:in-progress:{job_id}")
    assert not await redis.exists(f"arq:retry:{job_id}")
    assert await redis.exists(f"arq:job:{job_id}")
    return await redis.zscore("arq:queue", job_id)


async def test_sigterm_hands_running_jobs_back_without_costing_a_try(redis, processes):
    await redis.enqueue_job("hold", _job_id="a")
    due = await redis.zscore("arq:queue", "a")
    first = processes(MAX_TRIES="1")
    await runs(redis, 1)
    first.send(signal.SIGTERM)
    assert await first.exit_code() == 0
    assert await handed_back(redis, "a") == due

    # With one try allowed, a spent try would be the end of the job.
    second = processes(MAX_TRIES="1")
    assert [line[1:] for line in await runs(redis, 2)] == [
        [str(first.pid), "1"],
        [str(second.pid), "1"],
    ]


async def test_sigterm_lets_jobs_finish_within_the_wait(redis, processes):
    job = await redis.enqueue_job("hold", _job_id="a")
    process = processes(WAIT_S="60")
    await runs(redis, 1)
    process.send(signal.SIGTERM)
    await redis.set(OPEN, 1)
    assert await process.exit_code() == 0
    assert await job.result(timeout=30, poll_delay=0.02) == process.pid


async def test_a_worker_that_drains_takes_nothing_new(redis, fleet):
    blocking = BlockingJob()
    running = await redis.enqueue_job("blocking", 1)
    worker = fleet.start(blocking.function, job_completion_wait=60, poll_delay=0.01)
    await blocking.wait_started()
    worker.handle_sig_wait_for_completion(signal.SIGTERM)
    late = await redis.enqueue_job("blocking", 2)
    blocking.unblock()
    assert await running.result(timeout=30, poll_delay=0.02) == [1]
    await within_deadline(fleet.mains[0])
    assert await late.status() == "queued"


async def test_a_second_signal_hurries(redis, processes):
    await redis.enqueue_job("hold", _job_id="a")
    process = processes(WAIT_S=str(int(NEVER_S)))
    await runs(redis, 1)
    # Two different signals: the kernel would deliver two equal ones as one.
    process.send(signal.SIGTERM)
    process.send(signal.SIGINT)
    assert await process.exit_code() == 0
    await handed_back(redis, "a")


async def test_after_the_wait_the_rest_is_handed_back(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.start(blocking.function, job_completion_wait=0.05)
    await blocking.wait_started()
    worker.handle_sig_wait_for_completion(signal.SIGTERM)
    await within_deadline(worker.close())
    await handed_back(redis, "a")


async def test_a_claim_that_is_under_way_when_the_stop_comes_is_handed_back(
    redis, fleet, monkeypatch
):
    blocking = BlockingJob()
    worker = fleet.start(blocking.function, poll_delay=0.01)
    claim, claimed, answer = worker.fetcher.claimer.claim, asyncio.Event(), asyncio.Event()

    async def slow_claim(*args, **kwargs):
        batch = await claim(*args, **kwargs)
        if batch.claims:
            claimed.set()
            await answer.wait()
        return batch

    monkeypatch.setattr(worker.fetcher.claimer, "claim", slow_claim)
    await redis.enqueue_job("blocking", _job_id="a")
    await within_deadline(claimed.wait())
    worker.handle_sig(signal.SIGTERM)
    fleet.mains[0].cancel()
    answer.set()
    await within_deadline(worker.close())
    assert blocking.runs == []
    await handed_back(redis, "a")


async def test_a_job_that_ignores_its_cancellation_does_not_hold_up_the_exit(
    redis, fleet, monkeypatch, caplog
):
    monkeypatch.setattr(worker_module, "CANCEL_PATIENCE_S", 0.1)
    started, end = asyncio.Event(), asyncio.Event()

    async def stubborn(ctx):
        started.set()
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    await redis.enqueue_job("stubborn", _job_id="a")
    worker = fleet.start(func(stubborn, name="stubborn"))
    await within_deadline(started.wait())
    await within_deadline(worker.close())
    assert "1 jobs ignore their cancellation" in caplog.text
    # Not released: it still runs. Its lease ends with the process.
    assert await redis.exists("arq:in-progress:a")
    end.set()


async def test_a_cancelled_job_outside_a_shutdown_still_counts_as_a_try(redis, fleet):
    async def cancels_itself(ctx):
        if ctx["job_try"] == 1:
            raise asyncio.CancelledError
        return ctx["job_try"]

    job = await redis.enqueue_job("cancels")
    await fleet.make(func(cancels_itself, name="cancels"), burst=True).main()
    assert await job.result() == 2


async def test_a_worker_can_be_started_again_after_a_stop(redis, fleet):
    blocking = BlockingJob()
    blocking.unblock()
    worker = fleet.start(blocking.function)
    worker.handle_sig(signal.SIGUSR1)
    await within_deadline(worker.close())
    fleet.mains.append(asyncio.ensure_future(worker.main()))
    job = await redis.enqueue_job("blocking", 1)
    assert await job.result(timeout=30, poll_delay=0.02) == [1]


async def test_a_stop_that_comes_during_the_start_is_not_forgotten(redis, fleet):
    async def stop_at_once(ctx):
        worker.handle_sig(signal.SIGTERM)

    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.make(blocking.function, on_startup=stop_at_once)
    await within_deadline(worker.main())
    assert blocking.runs == []
    assert not await redis.exists("arq:in-progress:a")


class LongLeaseWorker(Worker):
    """A worker whose leases never lapse during a test."""

    lease_s = NEVER_S


async def test_a_worker_that_drains_leaves_the_rings_to_others(redis, fleet):
    blocking = BlockingJob()
    await put(redis, [QueuedJob("last", "blocking")])
    options = {"cls": LongLeaseWorker, "poll_delay": NEVER_S, "job_completion_wait": 60, **JSON}
    draining = fleet.start(blocking.function, **options)
    await blocking.wait_started()
    await listening(redis, 1)
    draining.handle_sig_wait_for_completion(signal.SIGTERM)
    fleet.start(blocking.function, poll_delay=NEVER_S, **JSON)

    await listening(redis, 2)
    # The draining worker has waited at the bell for longer, so it is the one that hears it.
    await put(redis, [QueuedJob("next", "blocking")])
    await blocking.wait_started(2)
    blocking.unblock()


async def test_a_stop_before_a_jobs_first_step_gives_the_job_back(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.make(blocking.function)
    worker._pool = redis
    batch = await worker.fetcher.claimer.claim(redis, 1, aborts=False)
    worker.fetcher.start(batch.claims[0])
    worker.handle_sig(signal.SIGTERM)  # in the same turn: the task has not begun
    await within_deadline(asyncio.wait(worker.tasks.values()))
    await within_deadline(worker.completer.drain(5))
    assert (worker.claims.held, blocking.runs) == ({}, [])
    assert not await redis.exists("arq:in-progress:a", "arq:retry:a", "arq:claims:a")
    await worker.leases.stop()
    worker._pool = None
