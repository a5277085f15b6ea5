"""Cancelled at random moments, a job either happened and says so, or did not and says that."""

import asyncio
import random
import time

import pytest

from tests.worker.execution.kit import again, letter, recording_executor
from worker.execution.outcome import Finished

CANCELS = 200
SEED = 20260311
AT_ONCE = 4
WARM_UP = 40


@pytest.mark.timeout(120)
async def test_two_hundred_random_cancels_leave_no_outcome_in_doubt(sessions, engine):
    executor = recording_executor(sessions)
    chance = random.Random(SEED)
    deliveries = [letter(str(n)) for n in range(CANCELS)]
    ids = sorted(delivery.job.id for delivery in deliveries)
    answered = set()
    in_turn = asyncio.Semaphore(AT_ONCE)

    async def cancel_after(delivery, wait_s):
        async with in_turn:
            task = asyncio.ensure_future(executor.run(delivery))
            await asyncio.sleep(wait_s)
            task.cancel()
            try:
                outcome = await task
            except asyncio.CancelledError:
                return
            assert isinstance(outcome, Finished)
            answered.add(delivery.job.id)

    longest_s = 2 * await how_long_a_run_takes(executor)
    waits = [chance.random() * longest_s for _ in deliveries]
    await asyncio.gather(*map(cancel_after, deliveries, waits))
    sent = await executor.sent(ids)

    assert sent == sorted(answered), f"seed {SEED}"
    assert 0 < len(sent) < CANCELS, "the cancels must hit both sides of the commit"
    assert engine.pool.checkedout() == 0

    # Whatever was cancelled runs when it is delivered again, and what was not is a duplicate.
    async def deliver_again(delivery):
        async with in_turn:
            assert isinstance(await executor.run(again(delivery)), Finished)

    await asyncio.gather(*map(deliver_again, deliveries))

    assert await executor.sent(ids) == ids
    assert executor.count("job.duplicate") == len(sent)


async def how_long_a_run_takes(executor):
    """On this machine at this moment, so that the cancels hit every part of a run."""
    started_at = time.monotonic()
    for start in range(0, WARM_UP, AT_ONCE):
        letters = [letter(f"warm up {n}") for n in range(start, start + AT_ONCE)]
        await asyncio.gather(*map(executor.run, letters))
    return (time.monotonic() - started_at) / (WARM_UP / AT_ONCE)
