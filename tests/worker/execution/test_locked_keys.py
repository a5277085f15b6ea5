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
    CLOSED_MAX_S,
    CLOSED_MIN_S,
    ONE_KEY_PART,
    TRIAL_S,
    LockedKeys,
)
from worker.execution.outcome import Finished, Later
from worker.execution.semaphores import KeyedSemaphores


class LockNotAvailableError(Exception):
    """As the driver's."""

    sqlstate = "55P03"


HOT, COLD = frozenset(["hot"]), frozenset(["cold"])


def time_out(locked, keys, at_s, acquitted=()):
    """Have a job try its keys and time out."""
    locked.enter(keys)
    locked.time_out(keys, acquitted, at_s)


def test_keys_are_closed_for_twice_as_long_each_time_up_to_a_bound():
    locked, now_s, waits_s = LockedKeys(), 0.0, []
    for _ in range(8):
        time_out(locked, HOT, now_s)
        waits_s.append(locked.away_s(HOT, now_s))
        now_s += waits_s[-1]

    assert waits_s[:3] == [CLOSED_MIN_S, 2 * CLOSED_MIN_S, 4 * CLOSED_MIN_S]
    assert waits_s[-1] == CLOSED_MAX_S


def test_two_that_waited_together_count_as_one():
    locked = LockedKeys()
    time_out(locked, HOT, 0.0)
    time_out(locked, HOT, 0.1)

    assert locked.away_s(HOT, 0.1) == CLOSED_MIN_S


def test_one_job_tries_closed_keys_and_all_others_stay_away_meanwhile():
    locked = LockedKeys()
    time_out(locked, HOT, 0.0)

    assert locked.away_s(HOT | COLD, CLOSED_MIN_S) == 0
    locked.enter(HOT)
    assert locked.away_s(HOT | COLD, CLOSED_MIN_S) == TRIAL_S
    locked.give_up(HOT)  # it failed by itself: nothing is known
    assert locked.away_s(HOT, CLOSED_MIN_S) == 0


def test_the_first_success_lets_all_in():
    locked = LockedKeys()
    for at_s in range(5):
        time_out(locked, HOT | COLD, float(at_s))
        time_out(locked, HOT, float(at_s))
    locked.enter(HOT | COLD)
    locked.succeed(HOT | COLD)

    assert locked.away_s(HOT | COLD, 5.0) == locked.away_s(HOT, 5.0) == 0
    assert not locked


def test_a_key_is_not_closed_because_jobs_that_also_have_a_locked_one_time_out():
    locked = LockedKeys()
    for at_s in range(5):
        time_out(locked, HOT | COLD, float(at_s))

    assert locked.away_s(HOT | COLD, 5.0) > 0
    assert locked.away_s(COLD, 5.0) == locked.away_s(COLD | {"third"}, 5.0) == 0


def test_a_key_that_times_out_beside_several_others_is_closed_for_whoever_has_it():
    locked = LockedKeys()
    time_out(locked, HOT | COLD, 0.0)
    time_out(locked, HOT | {"third"}, 0.0)

    assert locked.away_s(HOT | {"fourth"}, 0.0) == ONE_KEY_PART * CLOSED_MIN_S
    assert locked.away_s(COLD | {"third"}, 0.0) == 0


def test_a_key_with_which_others_succeed_is_never_the_one():
    locked = LockedKeys()
    time_out(locked, frozenset(["hot", "busy"]), 0.0)
    locked.succeed(frozenset(["busy", "cold"]))
    time_out(locked, frozenset(["other hot", "busy"]), 0.0)
    assert locked.away_s(frozenset(["busy"]), 0.0) == 0

    time_out(locked, frozenset(["third hot", "busy"]), 0.0, acquitted=["busy"])
    assert locked.away_s(frozenset(["busy"]), 0.0) == 0


def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(locked_keys, "REMEMBERED_MAX", 10)
    locked = LockedKeys()
    for number in range(11):
        time_out(locked, frozenset([str(number)]), 0.0)

    assert locked.away_s(frozenset(["0"]), 0.0) == 0
    assert locked.away_s(frozenset(["10"]), 0.0) == CLOSED_MIN_S


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

    await time_out_with(keyed, "cold", "hot")
    await time_out_with(keyed, "cold", "third", meanwhile=succeed_with_cold)

    assert keyed.away_s(COLD | {"third"}) == CLOSED_MIN_S
    assert keyed.away_s(COLD) == 0


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

    assert keyed.away_s(HOT) == 0


async def test_who_tries_again_in_place_is_not_kept_away():
    keyed = KeyedSemaphores()
    await time_out_with(keyed, "hot")

    async with keyed.hold(["hot"], insists=True) as away_s:
        assert not away_s

    assert keyed.away_s(HOT) == 0  # it succeeded


class LockingJob:
    """Sends letters, those to "hot" under a lock that is soon given up; notes which began."""

    def __init__(self):
        self.begun = []
        self.job = replace(SEND_LETTER, handler=self._lock)

    async def _lock(self, ctx, request):
        self.begun.append(request.address)
        session = ctx.store.session
        await session.execute(text("SET LOCAL lock_timeout = '20ms'"))
        if request.address == "hot":
            await session.execute(LOCK)
        return LetterSent(letter_id=ctx.job_id)


LOCK = text("LOCK TABLE samples.letters IN SHARE UPDATE EXCLUSIVE MODE")


async def test_jobs_of_a_locked_row_do_not_begin_until_one_may_try(sessions, monkeypatch):
    monkeypatch.setattr(locked_keys, "CLOSED_MIN_S", 3_600.0)
    monkeypatch.setattr(locked_keys, "CLOSED_MAX_S", 3_600.0)
    recording, locking = recording_executor(sessions), LockingJob()
    job = locking.job
    async with sessions() as operator, operator.begin():
        await operator.execute(LOCK)
        assert isinstance(await recording.run(letter("hot"), job), Later)
        others = await asyncio.gather(*(recording.run(letter("hot"), job) for _ in range(20)))
        assert isinstance(await recording.run(letter("cold"), job), Finished)

    assert locking.begun == ["hot"] * 3 + ["cold"]
    assert all(outcome.delay.total_seconds() > 3_000 for outcome in others)


async def test_they_run_again_once_the_lock_is_gone(sessions, monkeypatch):
    monkeypatch.setattr(locked_keys, "CLOSED_MIN_S", 0.05)
    monkeypatch.setattr(locked_keys, "CLOSED_MAX_S", 0.2)
    recording, job = recording_executor(sessions), LockingJob().job
    async with sessions() as operator, operator.begin():
        await operator.execute(LOCK)
        assert isinstance(await recording.run(letter("hot"), job), Later)

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
