"""A cancel is either before the commit or after it."""

import asyncio

import pytest

from worker.execution import commit
from worker.execution.commit import shielded_commit


async def started(task_factory):
    """Start a unit that says when it is where the test wants it."""
    there = asyncio.Event()
    task = asyncio.ensure_future(task_factory(there))
    async with asyncio.timeout(5):
        await there.wait()
    return task


async def test_a_cancel_before_the_commit_ends_the_work():
    ended = asyncio.Event()

    async def unit(there, window):
        there.set()
        try:
            await asyncio.Event().wait()
        finally:
            assert not window.begun
            ended.set()

    task = await started(lambda there: shielded_commit(lambda window: unit(there, window)))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_cancel_during_the_commit_waits_for_its_answer():
    answer = asyncio.Event()

    async def unit(there, window):
        window.open()
        there.set()
        await answer.wait()
        return "committed"

    task = await started(lambda there: shielded_commit(lambda window: unit(there, window)))
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    answer.set()

    assert await task == "committed"


async def test_a_commit_that_fails_under_a_cancel_is_a_cancel():
    answer = asyncio.Event()

    async def unit(there, window):
        window.open()
        there.set()
        await answer.wait()
        raise ConnectionError

    task = await started(lambda there: shielded_commit(lambda window: unit(there, window)))
    task.cancel()
    await asyncio.sleep(0)
    answer.set()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_commit_that_never_answers_does_not_hold_a_cancel_forever(monkeypatch):
    monkeypatch.setattr(commit, "COMMIT_ANSWER_WAIT_S", 0.01)

    async def unit(there, window):
        window.open()
        there.set()
        await asyncio.Event().wait()

    task = await started(lambda there: shielded_commit(lambda window: unit(there, window)))
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_passes_through_unchanged():
    async def unit(window):
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        await shielded_commit(unit)


async def test_a_unit_that_takes_too_long_is_cancelled(monkeypatch):
    ended = asyncio.Event()

    async def unit(_window):
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(commit.UnitTimeoutError):
        await shielded_commit(unit, limit_s=0.01)
    assert ended.is_set()


async def test_a_commit_that_answers_late_is_a_commit():
    async def unit(window):
        window.open()
        await asyncio.sleep(0.05)
        return "committed"

    assert await shielded_commit(unit, limit_s=0.01) == "committed"


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), GeneratorExit()])
async def test_what_would_end_the_process_is_an_error_of_the_unit(error):
    async def unit(_window):
        raise error

    with pytest.raises(commit.EscapeError) as escaped:
        await shielded_commit(unit)
    assert escaped.value.__cause__ is error


async def test_a_cancel_from_within_is_told_from_one_of_the_caller():
    async def unit(_window):
        raise asyncio.CancelledError

    with pytest.raises(commit.ForeignCancelError):
        await shielded_commit(unit)
