"""Whatever a handler does is an outcome of its job, spends its attempts, and never leaves."""

import asyncio
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from db.execution import RESULT_BYTES_MAX
from jobs import Retry
from tests.worker.execution.test_executor import Made, Toy, delivery_of, job_of, make, toys, write
from worker.execution import commit, executor, payloads, retry
from worker.execution.error_text import describe
from worker.execution.outcome import Finished, Later

__all__ = ["toys"]


class MuteError(Exception):
    """An exception that cannot be printed."""

    def __str__(self):
        raise RuntimeError("not for you")


class EvilError(Exception):
    """An exception whose every property raises what ends programs."""

    def __str__(self):
        raise SystemExit

    def __getattribute__(self, name):
        if name in {"sqlstate", "orig", "code"}:
            raise KeyboardInterrupt
        return super().__getattribute__(name)


class Panic(BaseException):
    """What a Rust extension's panic is."""


async def cancel_a_child(_ctx, _toy):
    child = asyncio.ensure_future(asyncio.sleep(10))
    asyncio.get_running_loop().call_later(0.005, child.cancel)
    await child


async def cancel_itself(_ctx, _toy):
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def run_out_of_its_own_time(_ctx, _toy):
    async with asyncio.timeout(0.005):
        await asyncio.sleep(10)


async def run_out_of_its_own_time_in_a_query(ctx, _toy):
    async with asyncio.timeout(0.02):
        await ctx.store.session.execute(text("SELECT pg_sleep(5)"))


async def kill_its_backend(ctx, _toy):
    await ctx.store.session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))


def raising(error):
    async def raise_it(_ctx, _toy):
        raise error

    return raise_it


MISDEEDS = {
    "sys.exit": (raising(SystemExit(3)), "SystemExit"),
    "ctrl-c": (raising(KeyboardInterrupt()), "KeyboardInterrupt"),
    "generator exit": (raising(GeneratorExit()), "GeneratorExit"),
    "panic": (raising(Panic("index out of bounds")), "Panic"),
    "stop iteration": (raising(StopIteration()), "RuntimeError"),
    "cancel of a child": (cancel_a_child, "ForeignCancelError"),
    "cancel of itself": (cancel_itself, "ForeignCancelError"),
    "a cancellation raised": (raising(asyncio.CancelledError()), "ForeignCancelError"),
    "own time-out": (run_out_of_its_own_time, "TimeoutError"),
    "own time-out in a query": (run_out_of_its_own_time_in_a_query, "TimeoutError"),
    "mute": (raising(MuteError()), "MuteError"),
    "evil": (raising(EvilError()), None),
    "nul": (raising(ValueError("cannot read b'\x00\x01'")), "ValueError"),
    "surrogate": (raising(ValueError(b"/\xff".decode(errors="surrogateescape"))), "ValueError"),
    "huge": (raising(ValueError("x" * 10_000_000)), "ValueError"),
    "long name": (raising(type("E" * 5_000, (Exception,), {})()), "E" * 100),
    "group": (raising(BaseExceptionGroup("g", [SystemExit(1)])), "BaseExceptionGroup"),
    "killed backend": (kill_its_backend, None),
}


@pytest.mark.parametrize("handler_and_error", MISDEEDS.values(), ids=MISDEEDS)
async def test_a_misdeed_is_the_jobs_own_failure_and_ends_it(toys, monkeypatch, handler_and_error):
    monkeypatch.setattr(retry, "IN_PLACE_S", 0.5)
    handler, error = handler_and_error
    job, delivery = job_of(handler, retry=Retry(attempts_max=2)), delivery_of()

    first = await toys.executor.run(job, delivery)
    last = await toys.executor.run(job, replace(delivery, try_number=2))

    assert isinstance(first, Later)
    assert last.state == "dead"
    errors = await toys.errors(delivery)
    assert len(errors) == 2
    if error is not None:
        assert {one["error"] for one in errors} == {error}
    assert all(len(one["message"]) <= 500 for one in errors)
    assert toys.names()[-1] == "job.dead"


@pytest.mark.parametrize("where", ["parsing", "conflict keys", "result"])
async def test_what_a_jobs_models_raise_is_its_failure_too(toys, where):
    job, delivery = job_of(make, retry=Retry(attempts_max=1)), delivery_of()

    class BadToy(Toy):
        def conflict_keys(self):
            if where == "conflict keys":
                sys.exit(3)
            return ()

        @classmethod
        def model_validate_json(cls, *args, **kwargs):
            if where == "parsing":
                raise Panic
            return super().model_validate_json(*args, **kwargs)

    class BadMade(Made):
        def model_dump(self, **_options):
            raise Panic

    async def make_badly(_ctx, toy):
        return BadMade(name=toy.name) if where == "result" else Made(name=toy.name)

    outcome = await toys.executor.run(replace(job, payload=BadToy, handler=make_badly), delivery)

    assert outcome.state == "dead"


async def test_a_handler_that_ignores_its_cancellation_is_left_behind_and_cannot_commit(
    toys, monkeypatch
):
    monkeypatch.setattr(executor, "ATTEMPT_MARGIN_S", 0.1)
    monkeypatch.setattr(commit, "UNWIND_WAIT_S", 0.05)
    go_on, ended = asyncio.Event(), asyncio.Event()

    async def ignore(ctx, toy):
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue
        await write(ctx, toy.name)
        ended.set()
        return Made(name=toy.name)

    delivery = delivery_of("never made")
    job = job_of(ignore, retry=Retry(attempts_max=1), timeout=timedelta(milliseconds=50))
    async with asyncio.timeout(20):
        outcome = await toys.executor.run(job, delivery)
    go_on.set()
    async with asyncio.timeout(20):
        await ended.wait()
        # It gives its connection back before the engine is disposed of.
        await asyncio.wait(asyncio.all_tasks() - {asyncio.current_task()})

    assert outcome.state == "dead"
    assert (await toys.errors(delivery))[0]["error"] == "UnitTimeoutError"
    assert await toys.toys("never made") == 0


async def test_a_failure_that_cannot_be_written_as_it_is_is_written_as_less(toys, monkeypatch):
    """Whatever nobody foresaw still spends an attempt, visibly."""

    def describe_badly(error, *private):
        return replace(describe(error, *private), message="\x00")

    monkeypatch.setattr(payloads, "describe", describe_badly)
    job, delivery = job_of(raising(ValueError("x")), retry=Retry(attempts_max=2)), delivery_of()

    first = await toys.executor.run(job, delivery)
    last = await toys.executor.run(job, replace(delivery, try_number=2))

    assert isinstance(first, Later)
    assert last.state == "dead"
    assert [one["error"] for one in await toys.errors(delivery)] == ["Unforeseen"] * 2


async def test_a_bug_of_the_executor_itself_spends_an_attempt_and_ends_nothing_else(
    toys, monkeypatch
):
    def fail(*_args, **_options):
        raise AssertionError("a bug")

    monkeypatch.setattr(executor, "cause_of", fail)
    outcome = await toys.executor.run(job_of(raising(ValueError("x"))), delivery_of())

    assert isinstance(outcome, Later)


async def test_our_own_cancel_is_no_failure(toys):
    started = asyncio.Event()

    async def wait(_ctx, _toy):
        started.set()
        await asyncio.Event().wait()

    delivery = delivery_of()
    task = asyncio.ensure_future(toys.executor.run(job_of(wait), delivery))
    await started.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert await toys.stored(delivery) is None


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("name", ["x" * RESULT_BYTES_MAX, "語" * (RESULT_BYTES_MAX // 3)])
async def test_a_result_that_is_too_large_is_a_failure(toys, name, snapshot):
    async def answer_at_length(_ctx, _toy):
        return Made(name=name)

    delivery = delivery_of()
    job = job_of(answer_at_length, retry=Retry(attempts_max=1), snapshot=snapshot)
    outcome = await toys.executor.run(job, delivery)

    assert outcome.state == "dead"
    (error,) = await toys.errors(delivery)
    assert error["error"] == "ResultTooLargeError"
    assert "store the bulk elsewhere" in error["message"]


async def test_a_result_of_just_the_largest_size_is_kept(toys):
    longest = "x" * (RESULT_BYTES_MAX - len('{"name":""}'))

    async def answer_at_length(_ctx, _toy):
        return Made(name=longest)

    outcome = await toys.executor.run(
        job_of(answer_at_length, retry=Retry(attempts_max=1)), delivery_of()
    )

    assert outcome == Finished("completed", {"name": longest})


async def test_reasons_are_bounded_and_printable(toys):
    from jobs import Rejected

    async def refuse(_ctx, _toy):
        return Rejected("code\x00", "\ud800" + "why " * 10_000)

    outcome = await toys.executor.run(job_of(refuse), delivery_of())

    assert isinstance(outcome, Finished)
    assert outcome.result["code"] == "code\\x00"
    assert len(outcome.result["message"]) == 500
