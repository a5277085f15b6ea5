"""Limits and rates across workers: permits in a real Redis, and shares without one."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from db.execution import JobRef
from jobs import Rate
from jobs._job import Job, Policy
from tests.letters import SEND_LETTER, a_letter
from tests.worker.loop.kit import eventually
from worker.execution import limits as module
from worker.execution.delivery import Delivery
from worker.execution.limits import Limits

QUEUE = "arq:queue"


def kind(**policy):
    return Job(SEND_LETTER.payload, SEND_LETTER.handler, Policy(**policy))


def delivery():
    return Delivery(JobRef(uuid4(), "send_letter", "{}", datetime.now(UTC)), 1)


def waiting(redis, one):
    """Put a delivery's job into the queue, as it stands there while it waits."""
    return redis.zadd(QUEUE, {str(one.job.id): 2e15})


async def test_no_more_than_the_limit_hold_a_permit_whoever_asks(redis):
    first, second = Limits(redis, QUEUE), Limits(redis, QUEUE)
    job = kind(limit=2)
    async with (
        first.hold(job, a_letter(), delivery()) as one,
        second.hold(job, a_letter(), delivery()) as two,
        second.hold(job, a_letter(), delivery()) as three,
    ):
        assert (one, two) == (0, 0)
        assert 0 < three <= 30


async def test_a_permit_that_comes_back_is_for_the_job_that_has_waited_longest(redis):
    limits, job = Limits(redis, QUEUE), kind(limit=1)
    ahead, behind, late = delivery(), delivery(), delivery()
    async with limits.hold(job, a_letter(), delivery()) as wait_s:
        assert wait_s == 0
        for one in (ahead, behind):
            await waiting(redis, one)
            async with limits.hold(job, a_letter(), one) as refused_s:
                assert refused_s > 0

    async def brought_forward():
        return await redis.zscore(QUEUE, str(ahead.job.id)) < 2e15

    await eventually(brought_forward)
    assert await redis.zscore(QUEUE, str(behind.job.id)) == 2e15
    # It is kept for that job: one that comes meanwhile is refused.
    async with limits.hold(job, a_letter(), late) as wait_s:
        assert wait_s > 0
    async with limits.hold(job, a_letter(), ahead) as wait_s:
        assert wait_s == 0


async def test_a_limit_per_key_counts_each_key_for_itself_and_tells_redis_none(redis):
    limits, job = Limits(redis, QUEUE), kind(limit=1, per=lambda letter: letter.address)
    here, there = a_letter(address="1 High Street"), a_letter(address="2 High Street")
    async with (
        limits.hold(job, here, delivery()) as one,
        limits.hold(job, there, delivery()) as other,
        limits.hold(job, here, delivery()) as again,
    ):
        assert (one, other) == (0, 0)
        assert again > 0
        assert not any(b"High" in key for key in await redis.keys("*"))


async def test_a_dead_workers_permit_is_free_after_its_lease_and_a_living_ones_is_renewed(
    redis, monkeypatch
):
    monkeypatch.setattr(module, "LEASE_MS", 300)
    living, job = Limits(redis, QUEUE), kind(limit=1)
    async with living.hold(job, a_letter(), delivery()):
        for _ in range(4):
            await asyncio.sleep(0.1)
            await living.step()
        async with living.hold(job, a_letter(), delivery()) as wait_s:
            assert wait_s > 0

        async def lapsed():  # nobody renews it any more
            async with Limits(redis, QUEUE).hold(job, a_letter(), delivery()) as wait_s:
                return wait_s == 0

        await eventually(lapsed)


async def test_a_rate_lets_a_burst_through_and_promises_the_others_their_times_in_order(redis):
    limits, job = Limits(redis, QUEUE), kind(rate=Rate(10, timedelta(seconds=1), burst=3))
    deliveries = [delivery() for _ in range(8)]
    waits = []
    for one in deliveries:
        async with limits.hold(job, a_letter(), one) as wait_s:
            waits.append(wait_s)
    assert waits[:3] == [0, 0, 0]
    assert waits[3:] == sorted(waits[3:])
    assert 0 < waits[3] <= 0.1
    assert 0.3 <= waits[7] <= 0.5
    # Each that comes when it was told to may begin; one that comes too soon is told the same.
    async with limits.hold(job, a_letter(), deliveries[7]) as wait_s:
        assert 0 < wait_s <= waits[7]
    began = time.monotonic()
    for one, told_s in zip(deliveries[3:], waits[3:], strict=True):
        await asyncio.sleep(max(0.0, began + told_s + 0.02 - time.monotonic()))
        async with limits.hold(job, a_letter(), one) as wait_s:
            assert wait_s == 0


async def test_what_comes_late_to_its_time_does_not_break_the_rate(redis):
    limits, job = Limits(redis, QUEUE), kind(rate=Rate(10, timedelta(seconds=1)))
    deliveries = [delivery() for _ in range(6)]
    for one in deliveries:
        async with limits.hold(job, a_letter(), one):
            pass
    await asyncio.sleep(0.7)
    let_through = []
    for one in deliveries[1:]:
        async with limits.hold(job, a_letter(), one) as wait_s:
            let_through.append(wait_s == 0)
    assert sum(let_through) <= 2


async def test_without_redis_each_process_keeps_to_its_share():
    limits = Limits(None, QUEUE, workers=lambda: 2)
    job = kind(limit=4)
    async with (
        limits.hold(job, a_letter(), delivery()) as one,
        limits.hold(job, a_letter(), delivery()) as two,
        limits.hold(job, a_letter(), delivery()) as three,
    ):
        assert (one, two) == (0, 0)
        assert three > 0
    async with limits.hold(job, a_letter(), delivery()) as wait_s:
        assert wait_s == 0
    slow = kind(rate=Rate(1, timedelta(seconds=10)))
    async with limits.hold(slow, a_letter(), delivery()) as wait_s:
        assert wait_s == 0
    async with limits.hold(slow, a_letter(), delivery()) as wait_s:
        assert wait_s > 10


async def test_a_kind_without_limits_asks_nobody(redis):
    before = (await redis.info("commandstats")).get("cmdstat_eval", {"calls": 0})["calls"]
    async with Limits(redis, QUEUE).hold(kind(), a_letter(), delivery()) as wait_s:
        assert wait_s == 0
    after = (await redis.info("commandstats")).get("cmdstat_eval", {"calls": 0})["calls"]
    assert after == before


@pytest.mark.parametrize(
    "policy", [{"limit": 0}, {"per": str}, {"queue": "bell"}, {"queue": "Reports"}]
)
def test_a_policy_that_means_nothing_is_refused(policy):
    with pytest.raises(ValueError, match=r"limit|per=|queue"):
        kind(**policy)


def test_a_rate_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match="rate"):
        Rate(0)
    with pytest.raises(ValueError, match="rate"):
        Rate(1, timedelta())
