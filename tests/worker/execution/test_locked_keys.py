"""Jobs stay away from rows that somebody holds for long; one at a time looks whether it is over."""

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.letters import SEND_LETTER, LetterSent
from tests.worker.execution.kit import letter, recording_executor
from worker.execution import locked_keys
from worker.execution.locked_keys import (
    CLOSED_KEYS_MAX,
    CLOSED_MAX_S,
    CLOSED_MIN_S,
    TRIAL_S,
    LockedKeys,
)
from worker.execution.outcome import Finished, Later
from worker.execution.semaphores import KeyedSemaphores


class LockNotAvailableError(Exception):
    """As the driver's."""

    sqlstate = "55P03"


def time_out(locked, key, at_s):
    """Have a job try a key and time out."""
    locked.enter([key])
    locked.leave([key], succeeded=False)
    locked.close([key], at_s)


def test_a_key_is_closed_for_twice_as_long_each_time_up_to_a_bound():
    locked, now_s, waits_s = LockedKeys(), 0.0, []
    for _ in range(8):
        time_out(locked, "hot", now_s)
        waits_s.append(locked.away_s(["hot"], now_s))
        now_s += waits_s[-1]

    assert waits_s[:3] == [CLOSED_MIN_S, 2 * CLOSED_MIN_S, 4 * CLOSED_MIN_S]
    assert waits_s[-1] == CLOSED_MAX_S


def test_two_that_waited_together_count_as_one():
    locked = LockedKeys()
    locked.close(["hot"], 0.0)
    locked.close(["hot"], 0.1)

    assert locked.away_s(["hot"], 0.1) == CLOSED_MIN_S


def test_one_job_tries_a_closed_key_and_all_others_stay_away_meanwhile():
    locked = LockedKeys()
    locked.close(["hot"], 0.0)

    assert locked.away_s(["cold", "hot"], CLOSED_MIN_S) == 0
    locked.enter(["hot"])
    assert locked.away_s(["hot"], CLOSED_MIN_S) == TRIAL_S
    locked.leave(["hot"], succeeded=False)  # it failed by itself: nothing is known
    assert locked.away_s(["hot"], CLOSED_MIN_S) == 0


def test_the_first_success_opens_a_key():
    locked = LockedKeys()
    for at_s in range(5):
        time_out(locked, "hot", float(at_s))
    locked.enter(["hot"])
    locked.leave(["hot"], succeeded=True)

    assert locked.away_s(["hot"], 5.0) == 0
    assert len(locked) == 0


def test_the_keys_that_are_remembered_are_bounded():
    locked = LockedKeys()
    locked.close((str(number) for number in range(CLOSED_KEYS_MAX + 10)), 0.0)

    assert len(locked) == CLOSED_KEYS_MAX
    assert locked.away_s(["0"], 0.0) == 0
    assert locked.away_s([str(CLOSED_KEYS_MAX)], 0.0) == CLOSED_MIN_S


async def time_out_with(keyed, *keys, meanwhile=None):
    with suppress(LockNotAvailableError):
        async with keyed.hold(keys):
            if meanwhile is not None:
                await meanwhile()
            raise LockNotAvailableError


async def test_a_key_with_which_another_job_succeeds_meanwhile_is_not_the_one():
    now_s = 0.0
    keyed = KeyedSemaphores(clock=lambda: now_s)

    async def succeed_with_cold():
        nonlocal now_s
        now_s += 0.1
        async with keyed.hold(["cold"]) as away_s:
            assert not away_s

    await time_out_with(keyed, "cold", "hot", meanwhile=succeed_with_cold)

    assert keyed.away_s(["hot"]) == CLOSED_MIN_S
    assert keyed.away_s(["cold"]) == 0


async def test_those_that_wait_for_their_turn_go_away_once_the_key_is_closed():
    keyed, turns = KeyedSemaphores(1), []

    async def wait():
        async with keyed.hold(["hot"]) as away_s:
            turns.append(away_s)

    waiting = []

    async def begin_to_wait():
        waiting.extend(asyncio.ensure_future(wait()) for _ in range(3))
        await asyncio.sleep(0)

    await time_out_with(keyed, "hot", meanwhile=begin_to_wait)
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)

    assert len(turns) == 3
    assert all(away_s > 0 for away_s in turns)
    assert len(keyed) == 0


async def test_a_job_that_fails_otherwise_closes_nothing():
    keyed = KeyedSemaphores()
    with pytest.raises(ValueError, match="its own"):
        async with keyed.hold(["hot"]):
            raise ValueError("its own")

    assert keyed.away_s(["hot"]) == 0


async def test_who_tries_again_in_place_is_not_kept_away():
    keyed = KeyedSemaphores()
    await time_out_with(keyed, "hot")

    async with keyed.hold(["hot"], insists=True) as away_s:
        assert not away_s

    assert keyed.away_s(["hot"]) == 0  # it succeeded


async def test_jobs_of_a_locked_row_do_not_begin_but_one_until_the_lock_is_gone(
    sessions, monkeypatch
):
    monkeypatch.setattr(locked_keys, "TRIAL_S", 0.05)
    monkeypatch.setattr(locked_keys, "CLOSED_MAX_S", 1.0)
    recording, begun = recording_executor(sessions), []

    async def lock_and_send(ctx, request):
        begun.append(request.address)
        session = ctx.store.session
        await session.execute(text("SET LOCAL lock_timeout = '20ms'"))
        if request.address == "hot":
            await session.execute(text("LOCK TABLE samples.letters IN SHARE UPDATE EXCLUSIVE MODE"))
        return LetterSent(letter_id=ctx.job_id)

    job = replace(SEND_LETTER, handler=lock_and_send)
    async with sessions() as operator, operator.begin():
        await operator.execute(text("LOCK TABLE samples.letters IN SHARE UPDATE EXCLUSIVE MODE"))
        assert isinstance(await recording.run(letter("hot"), job), Later)
        tries = begun.count("hot")
        others = await asyncio.gather(*(recording.run(letter("hot"), job) for _ in range(20)))
        assert isinstance(await recording.run(letter("cold"), job), Finished)

    assert tries == 3
    assert begun == ["hot"] * 3 + ["cold"]
    assert all(
        isinstance(outcome, Later) and outcome.delay.total_seconds() > 0 for outcome in others
    )
    assert isinstance(await until_it_ends(recording, letter("hot"), job), Finished)
    assert isinstance(await recording.run(letter("hot"), job), Finished)


async def until_it_ends(recording, delivery, job):
    async with asyncio.timeout(30):
        outcome = await recording.run(delivery, job)
        for _ in range(1_000):
            if not isinstance(outcome, Later):
                break
            await asyncio.sleep(outcome.delay.total_seconds())
            outcome = await recording.run(delivery, job)
    return outcome
