"""Lanes keep order, never deadlock, and leave nothing behind."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.execution import semaphores as lanes
from worker.execution.semaphores import Lanes

keys = st.lists(st.sampled_from("abcd"), max_size=4)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_the_width_are_inside():
    lane, inside, most = Lanes(width=2), 0, 0

    async def job():
        nonlocal inside, most
        async with lane.pass_through(["hot"]):
            inside += 1
            most = max(most, inside)
            await settle()
            inside -= 1

    await asyncio.gather(*(job() for _ in range(20)))

    assert most == 2


async def test_a_lane_is_first_come_first_served():
    lane, order = Lanes(width=1), []

    async def job(number):
        async with lane.pass_through(["hot"]):
            order.append(number)
            await settle()

    await asyncio.gather(*(job(number) for number in range(10)))

    assert order == list(range(10))


async def test_jobs_without_a_key_in_common_do_not_wait_for_each_other():
    lane = Lanes(width=1)

    async with lane.pass_through(["a"]), asyncio.timeout(5), lane.pass_through(["b"]):
        pass


async def test_one_that_gives_up_waiting_leaves_no_gap():
    lane = Lanes(width=1)
    release = asyncio.Event()

    async def job(until):
        async with lane.pass_through(["hot"]):
            await until.wait()

    first = asyncio.ensure_future(job(release))
    await settle()
    second, third = (asyncio.ensure_future(job(release)) for _ in range(2))
    await settle()
    second.cancel()
    release.set()
    async with asyncio.timeout(5):
        await asyncio.gather(first, third)

    assert lane._inside == {}
    assert lane._waiting == {}


async def test_one_that_is_cancelled_as_its_turn_comes_passes_it_on():
    lane = Lanes(width=1)
    release = asyncio.Event()

    async def job():
        async with lane.pass_through(["hot"]):
            await release.wait()

    first, second, third = (asyncio.ensure_future(job()) for _ in range(3))
    await settle()
    release.set()
    await asyncio.sleep(0)  # the first has left, the second's turn is set but it has not run yet
    second.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(first, third)

    assert lane._inside == {}


async def test_a_lane_that_does_not_move_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(lanes, "WAIT_MAX_S", 0.01)
    lane = Lanes(width=1)

    async with lane.pass_through(["hot"]), asyncio.timeout(5), lane.pass_through(["hot"]):
        pass

    assert lane._inside == {}


@settings(max_examples=50, deadline=None)
@given(st.lists(keys, max_size=30), st.integers(0, 2**32))
def test_no_mix_of_keys_and_cancels_deadlocks_or_leaks(jobs, seed):
    async def run():
        chance, lane = random.Random(seed), Lanes(width=2)

        async def job(wanted):
            async with lane.pass_through(wanted):
                for _ in range(chance.randint(0, 3)):
                    await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(job(wanted)) for wanted in jobs]
        for task in tasks:
            await asyncio.sleep(0)
            if chance.random() < 0.3:
                task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert lane._inside == {}
        assert lane._waiting == {}

    asyncio.run(run())


def test_the_bound_is_below_every_queue_timeout():
    from worker.execution.arq_adapter import QUEUE_TIMEOUT_MARGIN

    assert QUEUE_TIMEOUT_MARGIN.total_seconds() > lanes.WAIT_MAX_S


@pytest.mark.parametrize("width", [1, 3])
async def test_a_job_may_name_a_key_twice(width):
    lane = Lanes(width=width)

    async with asyncio.timeout(5), lane.pass_through(["a", "a"]):
        pass
