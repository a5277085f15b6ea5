"""Claims: only what fits, at once, by one worker, in time that does not grow with the fleet."""

import asyncio
from collections import Counter

from arq.worker import func

from jobs._wire import QueuedJob, put
from worker.loop.claimer import Claimer
from worker.loop.claims import Claims
from worker.loop.fetcher import CLAIM_MAX

from .kit import JSON, NEVER_S, BlockingJob, eventually, listening, within_deadline


def claimer(name, lease_ms=60_000):
    return Claimer(Claims(name, lease_ms / 1000), "arq:queue")


async def enqueue(redis, count, function="blocking"):
    return [await redis.enqueue_job(function, number) for number in range(count)]


async def test_a_claimed_job_leaves_the_head_of_the_queue_and_its_lease_names_the_worker(redis):
    await redis.enqueue_job("f", _job_id="a")
    (claim,) = (await claimer("one").claim(redis, 1, aborts=False)).claims
    assert (claim.job_id, claim.tries) == ("a", 1)
    assert await redis.get("arq:in-progress:a") == b"one"
    assert 0 < await redis.pttl("arq:in-progress:a") <= 60_000
    assert await redis.zscore("arq:queue", "a") >= claim.score + 60_000


async def test_a_claim_brings_no_more_than_wanted_and_says_that_there_is_more(redis):
    await enqueue(redis, 3)
    first = await claimer("one").claim(redis, 2, aborts=False)
    assert (len(first.claims), first.more) == (2, True)
    assert await redis.zcard("arq:queue:bell") == 1
    second = await claimer("two").claim(redis, 2, aborts=False)
    assert (len(second.claims), second.more) == (1, False)
    assert not await redis.exists("arq:queue:bell")


async def test_jobs_are_claimed_in_the_order_they_are_due(redis):
    jobs = await enqueue(redis, 5)
    claims = (await claimer("one").claim(redis, 5, aborts=False)).claims
    by_score = sorted(claims, key=lambda claim: claim.score)
    assert claims == by_score
    assert {claim.job_id for claim in claims} == {job.job_id for job in jobs}


async def test_two_workers_that_claim_at_once_never_get_the_same_job(redis):
    await enqueue(redis, 200)
    workers = [claimer(f"w{number}") for number in range(8)]
    batches = await asyncio.gather(
        *(worker.claim(redis, 7, aborts=False) for worker in workers for _ in range(5))
    )
    claimed = Counter(claim.job_id for batch in batches for claim in batch.claims)
    assert len(claimed) == 200
    assert set(claimed.values()) == {1}


async def test_a_lapsed_lease_is_claimed_by_the_next_worker_and_counts_a_try(redis):
    await redis.enqueue_job("f", _job_id="a")
    await claimer("dead", lease_ms=20).claim(redis, 1, aborts=False)

    async def claimed_again():
        return (await claimer("live").claim(redis, 1, aborts=False)).claims

    (claim,) = await eventually(claimed_again)
    assert claim.tries == 2


async def test_a_leased_job_that_a_client_moved_to_the_head_is_moved_out_again(redis):
    await redis.enqueue_job("f", _job_id="a")
    await claimer("one").claim(redis, 1, aborts=False)
    await redis.zadd("arq:queue", {"a": 1})
    batch = await claimer("two").claim(redis, 1, aborts=False)
    assert batch.claims == []
    assert 50 < batch.next_due_in_s <= 60


async def test_the_next_deferred_job_is_known(redis):
    await redis.enqueue_job("f", _defer_by=30)
    batch = await claimer("one").claim(redis, 1, aborts=False)
    assert 29 < batch.next_due_in_s <= 30


async def test_slots_are_refilled_as_jobs_end_and_not_at_the_next_poll(redis, fleet):
    async def quick(ctx, number):
        await asyncio.sleep(0)

    jobs = await enqueue(redis, 200, "quick")
    fleet.start(func(quick, name="quick"), max_jobs=4, poll_delay=NEVER_S)
    await within_deadline(asyncio.gather(*(job.result(poll_delay=0.05) for job in jobs)))


async def test_no_worker_runs_more_than_its_slots(redis, fleet):
    blocking = BlockingJob()
    await enqueue(redis, 20)
    worker = fleet.start(blocking.function, max_jobs=3)
    await blocking.wait_started(3)
    assert worker.free_slots == 0
    blocking.unblock()
    await blocking.wait_started(20)
    assert blocking.peak == 3


async def test_three_workers_of_four_slots_run_twelve_jobs_at_once(redis, fleet):
    blocking = BlockingJob()
    await enqueue(redis, 30)
    for _ in range(3):
        fleet.start(blocking.function, max_jobs=4, queue_read_limit=4)
    await blocking.wait_started(12)
    assert blocking.running == 12
    blocking.unblock()
    await blocking.wait_started(30)


async def test_a_ring_wakes_an_idle_worker_that_does_not_poll(redis, fleet):
    blocking = BlockingJob()
    blocking.unblock()
    fleet.start(blocking.function, poll_delay=NEVER_S, **JSON)
    await listening(redis, 1)
    for number in range(3):
        await put(redis, [QueuedJob(f"job-{number}", "blocking")])
        await blocking.wait_started(number + 1)


async def test_a_bulk_of_jobs_and_one_ring_wake_as_many_workers_as_are_needed(redis, fleet):
    blocking = BlockingJob()
    for _ in range(3):
        fleet.start(blocking.function, max_jobs=4, poll_delay=NEVER_S, **JSON)
    await listening(redis, 3)
    await put(redis, [QueuedJob(f"job-{number}", "blocking") for number in range(12)])
    await blocking.wait_started(12)
    assert blocking.running == 12


async def test_a_ring_while_every_worker_is_busy_is_heard_by_the_next_one_that_is_free(
    redis, fleet
):
    blocking = BlockingJob()
    fleet.start(blocking.function, max_jobs=1, poll_delay=NEVER_S, **JSON)
    await listening(redis, 1)
    await put(redis, [QueuedJob("first", "blocking")])
    await blocking.wait_started(1)
    await put(redis, [QueuedJob("second", "blocking")])
    blocking.unblock()
    await blocking.wait_started(2)


async def test_the_bell_is_bounded_and_silent_once_nothing_is_due(redis, fleet):
    queued = [QueuedJob(f"job-{number}", "blocking") for number in range(20)]
    for job in queued:
        await put(redis, [job])
    assert await redis.zcard("arq:queue:bell") == 1
    blocking = BlockingJob()
    blocking.unblock()
    fleet.start(blocking.function, **JSON)
    await blocking.wait_started(20)

    async def silent():
        return not await redis.exists("arq:queue:bell")

    await eventually(silent)


async def test_a_client_that_only_enqueues_is_served_by_the_poll(redis, fleet):
    blocking = BlockingJob()
    blocking.unblock()
    fleet.start(blocking.function, poll_delay=0.05)
    job = await redis.enqueue_job("blocking")
    await job.result(timeout=30, poll_delay=0.01)


async def test_max_burst_jobs_is_exact(redis, fleet):
    async def quick(ctx, number):
        await asyncio.sleep(0)

    await enqueue(redis, 20, "quick")
    worker = fleet.make(func(quick, name="quick"), burst=True, max_burst_jobs=7)
    await worker.main()
    assert worker.jobs_complete == 7
    assert await redis.zcard("arq:queue") == 13


async def test_one_claim_is_bounded_whatever_the_slots(redis, fleet):
    blocking = BlockingJob()
    worker = fleet.make(blocking.function, max_jobs=10 * CLAIM_MAX)
    assert worker.fetcher.wanted == CLAIM_MAX


async def test_an_idle_worker_makes_one_call_per_poll_of_a_few_commands(redis, fleet):
    fleet.start(BlockingJob().function, poll_delay=0.02, allow_abort_jobs=True)
    await listening(redis, 1)

    async def polls():
        return (await redis.info("commandstats")).get("cmdstat_evalsha", {"calls": 0})["calls"]

    async def settled():
        return await polls() > 3

    await eventually(settled)
    await redis.config_resetstat()

    async def many():
        return await polls() >= 30

    await eventually(many)
    stats = await redis.info("commandstats")
    calls = {name: stat["calls"] for name, stat in stats.items()}
    ours = {
        name: calls[name]
        for name in calls
        if name not in {"cmdstat_info", "cmdstat_config|resetstat"}
    }
    count = ours.pop("cmdstat_evalsha")
    assert set(ours) <= {
        "cmdstat_time",
        "cmdstat_zrange",
        "cmdstat_del",
        "cmdstat_bzpopmin",
        "cmdstat_zscan",
    }
    assert sum(ours.values()) <= 3 * count + 4
