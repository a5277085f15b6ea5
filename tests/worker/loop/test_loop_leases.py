"""Leases: a dead worker's jobs run elsewhere soon, a live one's do not, and only holders decide."""

import asyncio
import logging
import signal

from worker.loop import Worker
from worker.loop.claimer import Claimer
from worker.loop.claims import Claims
from worker.loop.completer import Completer
from worker.loop.completions import Completion
from worker.loop.lease_watchdog import LeaseWatchdog
from worker.loop.leases import LeaseKeeper

from .kit import BlockingJob, ShortLeaseWorker, eventually
from .program import OPEN, RUNS


async def runs(redis, count):
    async def enough():
        lines = await redis.lrange(RUNS, 0, -1)
        return [line.decode().split() for line in lines] if len(lines) >= count else None

    return await eventually(enough)


def test_a_killed_workers_job_runs_elsewhere_within_ten_seconds_by_default():
    poll_delay_s = 0.5
    assert Worker.lease_s + poll_delay_s < 10


async def test_after_kill_9_another_worker_runs_the_job(redis, processes):
    job = await redis.enqueue_job("hold", _job_id="a")
    victim = processes()
    ((_, first_pid, _),) = await runs(redis, 1)
    survivor = processes()
    victim.send(signal.SIGKILL)
    _, (job_id, second_pid, second_try) = await runs(redis, 2)
    assert (int(first_pid), int(second_pid)) == (victim.pid, survivor.pid)
    assert (job_id, second_try) == ("a", "2")
    await redis.set(OPEN, 1)
    assert await job.result(timeout=30, poll_delay=0.02) == survivor.pid


async def test_a_job_that_outlives_many_leases_runs_once(redis, fleet):
    class Brief(Worker):
        lease_s = 0.4

    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    for _ in range(2):
        fleet.start(blocking.function, cls=Brief, poll_delay=0.02)
    await blocking.wait_started()
    claimed_until = await redis.zscore("arq:queue", "a")

    async def three_leases_later():
        return await redis.zscore("arq:queue", "a") > claimed_until + 3 * 400

    await eventually(three_leases_later)
    assert blocking.runs == [("a", 1)]
    blocking.unblock()


async def test_a_frozen_worker_that_lost_its_lease_leaves_the_new_owners_alone(redis, processes):
    job = await redis.enqueue_job("hold", _job_id="a")
    frozen = processes(LEASE_S="1")
    await runs(redis, 1)
    frozen.send(signal.SIGSTOP)
    owner = processes(LEASE_S="60")
    await runs(redis, 2)
    lease = await redis.get("arq:in-progress:a")
    assert f":{owner.pid}:".encode() in lease

    # Both end now, the frozen one first: it thaws while the owner still runs.
    owner.send(signal.SIGSTOP)
    await redis.set(OPEN, 1)
    frozen.send(signal.SIGCONT)
    frozen.send(signal.SIGTERM)
    assert await frozen.exit_code() == 0
    assert await redis.get("arq:in-progress:a") == lease
    assert not await redis.exists("arq:result:a")
    owner.send(signal.SIGCONT)
    assert await job.result(timeout=30, poll_delay=0.02) == owner.pid


async def test_a_worker_that_lost_a_lease_says_so_and_lets_the_job_go_on(redis, fleet, caplog):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.start(blocking.function, cls=ShortLeaseWorker)
    await blocking.wait_started()
    await redis.set("arq:in-progress:a", b"another worker")
    with caplog.at_level(logging.WARNING):
        await worker.leases.step()
    assert "job a: lease lost" in caplog.text
    assert blocking.running == 1
    blocking.unblock()

    async def ended():
        return worker.jobs_complete == 1 and not worker.tasks

    await eventually(ended)
    assert await redis.get("arq:in-progress:a") == b"another worker"
    assert await redis.exists("arq:job:a")
    assert "another worker holds it" in caplog.text


async def test_a_lease_that_lapsed_unclaimed_is_taken_back(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.start(blocking.function)
    await blocking.wait_started()
    await redis.delete("arq:in-progress:a")
    await worker.leases.step()
    assert await redis.get("arq:in-progress:a") == worker.worker_id.encode()
    blocking.unblock()


class StaleWorker:
    """A worker that claimed a job, lost it, and now reports how it ended."""

    def __init__(self, redis, name="stale"):
        self._redis = redis
        self._completer = Completer(Claims(name, 60), self._run, lambda _: None)

    async def _run(self, script, keys, args):
        return await script(self._redis, keys, args)

    async def report(self, kind, value, tries=1):
        await self._completer.add(Completion("a", tries, kind, value))


async def claim(redis, name, lease_ms=60_000):
    claimer = Claimer(Claims(name, lease_ms / 1000), "arq:queue")

    async def claimed():
        return (await claimer.claim(redis, 1, aborts=False)).claims

    return await eventually(claimed)


async def test_a_stale_worker_can_neither_finish_nor_move_a_job_that_was_claimed_again(redis):
    await redis.enqueue_job("f", _job_id="a")
    await claim(redis, "stale", lease_ms=10)
    await claim(redis, "owner")
    score = await redis.zscore("arq:queue", "a")
    stale = StaleWorker(redis)
    for kind, value in (("done", b"result"), ("again", 1), ("back", 1)):
        await stale.report(kind, value)
    assert await redis.zscore("arq:queue", "a") == score
    assert await redis.get("arq:in-progress:a") == b"owner"
    assert await redis.get("arq:retry:a") == b"2"
    assert not await redis.exists("arq:result:a")


async def test_a_stale_worker_cannot_touch_a_job_that_waits_for_its_next_try(redis):
    await redis.enqueue_job("f", _job_id="a")
    await claim(redis, "stale", lease_ms=10)
    await claim(redis, "owner", lease_ms=10)
    await redis.delete("arq:in-progress:a")
    await StaleWorker(redis).report("done", b"result")
    assert await redis.exists("arq:job:a")
    assert not await redis.exists("arq:result:a")


async def test_an_end_that_is_reported_twice_counts_once(redis):
    await redis.enqueue_job("f", _job_id="a")
    await claim(redis, "stale")
    await StaleWorker(redis).report("back", 1)
    await StaleWorker(redis).report("back", 1)
    assert not await redis.exists("arq:retry:a")
    (again,) = await claim(redis, "owner")
    assert again.tries == 1


async def test_after_a_flush_a_result_is_still_delivered_but_never_replaced(redis):
    await redis.set("arq:result:b", b"other")
    stale = StaleWorker(redis)
    await stale.report("done", b"result")
    assert await redis.get("arq:result:a") == b"result"
    await stale.report("done", b"later")
    assert await redis.get("arq:result:a") == b"result"


async def test_a_job_delivered_again_while_it_runs_here_runs_once(redis, fleet):
    blocking = BlockingJob()
    await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.start(blocking.function, poll_delay=0.02)
    await blocking.wait_started()
    await redis.flushall()
    job = await redis.enqueue_job("blocking", _job_id="a")

    async def leased_again():
        return await redis.get("arq:in-progress:a") == worker.worker_id.encode()

    await eventually(leased_again)
    blocking.unblock()
    await job.result(timeout=30, poll_delay=0.02)
    assert blocking.runs == [("a", 1)]
    await asyncio.gather(*worker.tasks.values())
    assert await redis.zcard("arq:queue") == 0


async def test_a_job_that_blocks_the_event_loop_for_longer_than_a_lease_keeps_it(redis, processes):
    job = await redis.enqueue_job("block", _job_id="a")
    blocked = processes(LEASE_S="1")
    ((_, pid, _),) = await runs(redis, 1)
    assert int(pid) == blocked.pid
    other = processes(LEASE_S="1", POLL_S="0.05")
    # The other worker is up, and looks for work while the first one cannot renew by itself.
    assert await (await redis.enqueue_job("whoami")).result(30, poll_delay=0.02) == other.pid
    leased_until = await redis.zscore("arq:queue", "a")

    async def three_leases_later():
        return await redis.zscore("arq:queue", "a") > leased_until + 3_000

    await eventually(three_leases_later)
    await redis.set(OPEN, 1)
    assert await job.result(timeout=30, poll_delay=0.02) == blocked.pid
    assert len(await runs(redis, 1)) == 1


async def test_a_release_that_overtakes_a_renewal_stays_a_release(redis):
    await redis.enqueue_job("f", _job_id="a")
    (claimed,) = await claim(redis, "me")
    await StaleWorker(redis, "me").report("again", 1)
    claims = Claims("me", 60, {"a": claimed})
    keeper = LeaseKeeper(
        claims, lambda *call: call[0](redis, *call[1:]), LeaseWatchdog(claims, 60, lambda: None)
    )
    claimed.ended = True
    await keeper.step()
    assert not await redis.exists("arq:in-progress:a")
    assert await redis.zscore("arq:queue", "a") == 1
