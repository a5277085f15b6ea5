"""Keyed semaphores keep order, never deadlock, and leave nothing behind."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.execution import semaphores
from worker.execution.semaphores import KeyedSemaphores

keys = st.lists(st.sampled_from("abcd"), max_size=4)


async def settle():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_no_more_than_the_maximum_hold_a_key():
    keyed, inside, most = KeyedSemaphores(2), 0, 0

    async def job():
        nonlocal inside, most
        async with keyed.hold(["hot"]):
            inside += 1
            most = max(most, inside)
            await settle()
            inside -= 1

    await asyncio.gather(*(job() for _ in range(20)))

    assert most == 2


async def test_a_key_is_first_come_first_served():
    keyed, order = KeyedSemaphores(1), []

    async def job(number):
        async with keyed.hold(["hot"]):
            order.append(number)
            await settle()

    await asyncio.gather(*(job(number) for number in range(10)))

    assert order == list(range(10))


async def test_jobs_without_a_key_in_common_do_not_wait_for_each_other():
    keyed = KeyedSemaphores(1)

    async with keyed.hold(["a"]), asyncio.timeout(5), keyed.hold(["b"]):
        pass


async def test_one_that_gives_up_waiting_leaves_no_gap():
    keyed = KeyedSemaphores(1)
    release = asyncio.Event()

    async def job(until):
        async with keyed.hold(["hot"]):
            await until.wait()

    first = asyncio.ensure_future(job(release))
    await settle()
    second, third = (asyncio.ensure_future(job(release)) for _ in range(2))
    await settle()
    second.cancel()
    release.set()
    async with asyncio.timeout(5):
        await asyncio.gather(first, third)

    assert len(keyed) == 0


async def test_one_that_is_cancelled_as_its_turn_comes_passes_it_on():
    keyed = KeyedSemaphores(1)
    release = asyncio.Event()

    async def job():
        async with keyed.hold(["hot"]):
            await release.wait()

    first, second, third = (asyncio.ensure_future(job()) for _ in range(3))
    await settle()
    release.set()
    await asyncio.sleep(0)  # the first has left, the second's turn is set but it has not run yet
    second.cancel()
    async with asyncio.timeout(5):
        await asyncio.gather(first, third)

    assert len(keyed) == 0


async def test_a_key_that_is_never_released_is_not_waited_for_forever(monkeypatch):
    monkeypatch.setattr(semaphores, "WAIT_MAX_S", 0.01)
    keyed = KeyedSemaphores(1)

    async with keyed.hold(["hot"]), asyncio.timeout(5), keyed.hold(["cold", "hot"]) as away_s:
        assert away_s == semaphores.CROWDED_S
        async with keyed.hold(["cold"]) as another_s:
            assert another_s == 0

    assert len(keyed) == 0


class RecordingSlot:
    """A slot that writes down what a waiting job does with it."""

    def __init__(self, *, may_park: bool = True):
        self.may_park = may_park
        self.steps = []

    def park(self):
        self.steps.append("park")
        return self.may_park

    async def resume(self):
        self.steps.append("resume")


async def test_whoever_waits_gives_its_slot_away_until_its_turn_comes():
    keyed, release = KeyedSemaphores(1), asyncio.Event()
    slot: Any = RecordingSlot()

    async def holder():
        async with keyed.hold(["hot"]):
            await release.wait()

    async def waiter():
        async with keyed.hold(["hot"], slot) as away_s:
            assert away_s == 0
            assert slot.steps == ["park", "resume"]

    tasks = [asyncio.ensure_future(holder())]
    await settle()
    tasks.append(asyncio.ensure_future(waiter()))
    await settle()
    assert slot.steps == ["park"]
    release.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*tasks)
    assert len(keyed) == 0


async def test_who_need_not_wait_keeps_its_slot():
    slot: Any = RecordingSlot()

    async with KeyedSemaphores(1).hold(["free"], slot) as away_s:
        assert away_s == 0

    assert slot.steps == []


async def test_where_too_many_wait_already_it_is_nobodys_turn():
    keyed = KeyedSemaphores(1)
    slot: Any = RecordingSlot(may_park=False)

    async with keyed.hold(["hot"]), keyed.hold(["cold", "hot"], slot) as away_s:
        assert away_s == semaphores.CROWDED_S

    assert slot.steps == ["park"]
    assert len(keyed) == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(keys, max_size=30), st.integers(0, 2**32))
def test_no_mix_of_keys_and_cancels_deadlocks_or_leaks(jobs, seed):
    async def run():
        chance, keyed = random.Random(seed), KeyedSemaphores(2)

        async def job(wanted):
            async with keyed.hold(wanted):
                for _ in range(chance.randint(0, 3)):
                    await asyncio.sleep(0)

        tasks = [asyncio.ensure_future(job(wanted)) for wanted in jobs]
        for task in tasks:
            await asyncio.sleep(0)
            if chance.random() < 0.3:
                task.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert len(keyed) == 0

    asyncio.run(run())


def test_the_bound_is_below_every_queue_timeout():
    from worker.execution.arq_adapter import QUEUE_TIMEOUT_MARGIN

    assert QUEUE_TIMEOUT_MARGIN.total_seconds() > semaphores.WAIT_MAX_S


@pytest.mark.parametrize("holders_max", [1, 3])
async def test_a_job_may_name_a_key_twice(holders_max):
    keyed = KeyedSemaphores(holders_max)

    async with asyncio.timeout(5), keyed.hold(["a", "a"]):
        pass
