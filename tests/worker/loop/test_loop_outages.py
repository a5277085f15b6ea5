"""Redis comes and goes: the worker stays, says so, and what ran is neither lost nor run twice."""

import asyncio
import logging
import os
import signal
from contextlib import suppress

import pytest
from arq.jobs import Job
from redis.exceptions import RedisError

from worker.loop import fetcher

from .kit import BlockingJob, ShortLeaseWorker, eventually, within_deadline


async def lost(worker):
    async def gone():
        return not worker.redis_available

    await eventually(gone)


async def regained(worker):
    await within_deadline(worker.connection.back.wait())


async def test_a_restart_in_the_middle_of_a_job_costs_neither_the_worker_nor_the_job(
    lasting, connect, fleet_on
):
    redis = connect(lasting)
    blocking = BlockingJob()
    held = await redis.enqueue_job("blocking", 1)
    worker = fleet_on(lasting).start(blocking.function, poll_delay=0.05)
    await blocking.wait_started()
    await asyncio.to_thread(lasting.stop)
    await lost(worker)
    blocking.unblock()  # the job ends while Redis is away
    await asyncio.to_thread(lasting.start)
    assert await held.result(timeout=30, poll_delay=0.02) == [1]
    later = await redis.enqueue_job("blocking", 2)
    assert await later.result(timeout=30, poll_delay=0.02) == [2]
    assert len(blocking.runs) == 2
    assert worker.redis_available


async def test_a_silent_redis_is_noticed_and_its_return_too(fragile, connect, fleet_on):
    redis = connect(fragile)
    blocking = BlockingJob()
    blocking.unblock()
    worker = fleet_on(fragile).start(blocking.function, poll_delay=0.05)
    assert await _runs(redis, 1) == [1]
    fragile.pause()
    try:
        await lost(worker)
    finally:
        fragile.resume()
    await regained(worker)
    assert await _runs(redis, 2) == [2]


async def test_a_claim_whose_answer_was_lost_costs_no_try_and_no_lease(
    fragile, connect, fleet_on, monkeypatch
):
    redis = connect(fragile)
    blocking = BlockingJob()
    blocking.unblock()
    worker = fleet_on(fragile).start(blocking.function, poll_delay=0.05, max_tries=1)
    assert await _runs(redis, 1) == [1]

    async def claim_and_lose_the_answer(*args, **kwargs):
        batch = await claim(*args, **kwargs)
        if not batch.claims:
            return batch
        monkeypatch.setattr(worker.fetcher.claimer, "claim", claim)
        raise ConnectionResetError

    claim = worker.fetcher.claimer.claim
    monkeypatch.setattr(worker.fetcher.claimer, "claim", claim_and_lose_the_answer)
    job = await redis.enqueue_job("blocking", 2)
    assert await job.result(timeout=30, poll_delay=0.02) == [2]
    assert (await job.result_info()).job_try == 1


async def test_a_flush_in_the_middle_of_a_job_does_not_end_the_worker(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", 1, _job_id="a")
    worker = fleet.start(blocking.function, cls=ShortLeaseWorker, poll_delay=0.05)
    await blocking.wait_started()
    await redis.flushall()
    await redis.script_flush()
    await worker.leases.step()
    blocking.unblock()
    later = await redis.enqueue_job("blocking", 2)
    assert await later.result(timeout=30, poll_delay=0.02) == [2]
    assert worker.jobs_complete == 2


async def test_a_worker_starts_without_redis_and_works_when_it_comes(fragile, connect, fleet_on):
    redis = connect(fragile)
    fleet = fleet_on(fragile)
    await asyncio.to_thread(fragile.stop)
    started = asyncio.Event()

    async def on_startup(ctx):
        assert ctx["redis"] is not None
        started.set()

    blocking = BlockingJob()
    blocking.unblock()
    worker = fleet.start(blocking.function, on_startup=on_startup, poll_delay=0.05)
    await within_deadline(started.wait())
    assert not worker.redis_available
    assert worker.connection.lost_at is not None
    await asyncio.to_thread(fragile.start)
    await regained(worker)
    assert await _runs(redis, 1) == [1]
    assert worker.connection.lost_at is None


async def test_a_burst_run_without_redis_fails(fragile, fleet_on, monkeypatch):
    fleet = fleet_on(fragile)
    await asyncio.to_thread(fragile.stop)
    worker = fleet.make(BlockingJob().function, burst=True)
    with pytest.raises((RedisError, OSError)):
        await worker.main()


async def test_a_burst_run_gives_up_on_a_redis_that_stays_away(fragile, fleet_on, monkeypatch):
    monkeypatch.setattr(fetcher, "BURST_OUTAGE_MAX_S", 0.2)

    async def stop_redis(ctx):
        await asyncio.to_thread(fragile.stop)

    fleet = fleet_on(fragile)
    worker = fleet.make(BlockingJob().function, burst=True, on_startup=stop_redis)
    with pytest.raises((RedisError, OSError)):
        await within_deadline(worker.main())


async def test_the_return_of_redis_is_noticed_while_every_slot_is_taken_by_local_jobs(redis, fleet):
    blocking = BlockingJob()
    worker = fleet.start(blocking.function, max_jobs=2, poll_delay=0.02)
    local = [worker.run_local(job_id, "blocking") for job_id in ("a", "b")]
    await blocking.wait_started(2)
    worker.connection.lose(ConnectionError("noticed by the last caller"))
    await regained(worker)
    blocking.unblock()
    await within_deadline(asyncio.gather(*local))


async def test_subscribers_are_called_when_redis_goes_and_comes(fragile, connect, fleet_on, caplog):
    redis = connect(fragile)
    calls = []
    worker = fleet_on(fragile).make(BlockingJob().function, poll_delay=0.05)
    worker.connection.on_lost.append(lambda: 1 / 0)  # a subscriber's error is its own
    worker.connection.on_lost.append(lambda: calls.append("lost"))
    worker.connection.on_back.append(lambda: calls.append("back"))
    main = asyncio.ensure_future(worker.main())

    async def polled():
        return await redis.exists("arq:queue:health-check")

    await eventually(polled)
    with caplog.at_level(logging.WARNING):
        await asyncio.to_thread(fragile.restart)

        async def both():
            return calls == ["lost", "back"]

        await eventually(both)
    assert "redis is away, claiming stops" in caplog.text
    assert "redis is back after" in caplog.text
    assert not main.done()


async def test_a_shutdown_without_redis_still_ends(fragile, connect, fleet_on, caplog, monkeypatch):
    monkeypatch.setattr("worker.loop.worker.RECORD_PATIENCE_S", 0.2)
    blocking = BlockingJob()
    await connect(fragile).enqueue_job("blocking")
    worker = fleet_on(fragile).start(blocking.function, poll_delay=0.05)
    await blocking.wait_started()
    await asyncio.to_thread(fragile.stop)
    await lost(worker)
    with caplog.at_level(logging.ERROR):
        await within_deadline(worker.close())
    assert "did not take the ends of 1 jobs" in caplog.text


async def test_a_worker_process_lives_through_an_outage(fragile, connect, tmp_path):
    from .kit import WorkerProcess

    process = WorkerProcess(fragile.port, POLL_S="0.05")
    try:
        redis = connect(fragile)
        await _processed(redis, "before", process.pid)
        await asyncio.to_thread(fragile.restart)
        await _processed(redis, "after", process.pid)
        os.kill(process.pid, signal.SIGTERM)
        assert await process.exit_code() == 0
    finally:
        process.end()


async def _processed(redis, job_id, pid):
    async def processed():
        # An answer may be lost in the restart, so nothing here counts on having been first.
        with suppress(RedisError, OSError):
            await redis.set("test:open", 1)
            await redis.enqueue_job("hold", _job_id=job_id)
            return await Job(job_id, redis).result_info()

    assert (await eventually(processed)).result == pid


async def _runs(redis, value):
    job = await redis.enqueue_job("blocking", value)
    return await job.result(timeout=30, poll_delay=0.02)
