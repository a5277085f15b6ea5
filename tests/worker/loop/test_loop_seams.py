"""The seams: jobs of another source in this worker's slots, refusals, many ends in one call."""

import asyncio

import pytest
from arq.utils import timestamp_ms
from arq.worker import Retry, func

from worker.loop import ends, outcomes, slots
from worker.loop.claims import Claims
from worker.loop.completer import BATCH_MAX, Completer
from worker.loop.completions import Completion
from worker.loop.decode import ABORTED
from worker.loop.outcomes import Completed, Failed, RetryLater, RunAgain

from .kit import BlockingJob, eventually, within_deadline


async def double(ctx, number):
    return 2 * number


async def test_a_local_job_has_the_same_context_and_hooks_and_leaves_nothing_in_redis(redis, fleet):
    seen = []

    async def hook(ctx):
        seen.append((ctx["job_id"], ctx["job_try"]))

    hooks = dict.fromkeys(("on_job_start", "on_job_end", "after_job_end"), hook)
    worker = fleet.make(func(double, name="double"), **hooks)
    outcome = await within_deadline(worker.run_local("a", "double", [4], job_try=2))
    assert outcome == Completed(8)
    assert seen == [("a", 2)] * 3
    assert worker.jobs_complete == 1
    assert await redis.keys("*") == []


async def test_a_local_job_takes_a_slot(redis, fleet):
    blocking = BlockingJob()
    worker = fleet.make(blocking.function, max_jobs=1)
    local = worker.run_local("a", "blocking")
    assert worker.free_slots == 0
    with pytest.raises(ValueError, match="no slot is free"):
        worker.run_local("b", "blocking")
    blocking.unblock()
    await within_deadline(local)
    assert worker.free_slots == 1


async def test_what_a_local_job_asks_for_is_the_callers_to_do(redis, fleet):
    async def later(ctx):
        raise Retry(defer=5)

    async def fails(ctx):
        raise RuntimeError("no")

    worker = fleet.make(func(later, name="later"), func(fails, name="fails"))
    assert await within_deadline(worker.run_local("a", "later")) == RetryLater(5000)
    assert isinstance(await within_deadline(worker.run_local("b", "fails")), Failed)
    with pytest.raises(KeyError):
        worker.run_local("c", "unknown")


async def test_a_local_job_that_redis_delivers_meanwhile_runs_once_and_is_recorded(redis, fleet):
    blocking = BlockingJob()
    worker = fleet.start(blocking.function, poll_delay=0.02)
    local = worker.run_local("a", "blocking")
    await blocking.wait_started()
    job = await redis.enqueue_job("blocking", _job_id="a")

    while not worker.claims.held["a"].in_redis:  # noqa: ASYNC110 - the claim comes with the next poll
        await asyncio.sleep(0.01)
    blocking.unblock()
    await within_deadline(local)
    assert await job.result(timeout=30, poll_delay=0.02) == []
    assert blocking.runs == [("a", 1)]


async def test_ends_that_come_together_travel_together_and_none_is_lost(redis):
    calls = []

    async def run(script, keys, args):
        calls.append(args)
        return await script(redis, keys, args)

    count = 2 * BATCH_MAX + 1
    for number in range(count):
        await redis.set(f"arq:in-progress:{number}", "me")
    completer = Completer(Claims("me", 60), run, lambda _: None)
    ends = [Completion(str(number), 1, "done", b"r%d" % number, 60_000) for number in range(count)]
    await within_deadline(asyncio.gather(*(completer.add(end) for end in ends)))
    assert len(calls) == 3
    results = await redis.mget([f"arq:result:{number}" for number in range(count)])
    assert results == [b"r%d" % number for number in range(count)]


async def test_ends_wait_for_redis_and_are_sent_again(redis):
    answers = [ConnectionError("away"), ConnectionError("away"), []]
    sent = []

    async def run(script, keys, args):
        sent.append(args)
        answer = answers.pop(0) if answers else []
        if isinstance(answer, Exception):
            raise answer
        return answer

    completer = Completer(Claims("me", 60), run, lambda _: None)
    await within_deadline(completer.add(Completion("a", 1, "done", b"result")))
    ends = [tuple(args[2:6]) for args in sent if len(args) > 1]
    assert ends == [("a", 1, "done", b"result")] * 2


async def test_an_end_is_confirmed_before_redis_deletes_anything(redis, fleet):
    seen = []

    async def confirm(ending):
        left = await redis.exists("arq:job:a"), await redis.zscore("arq:abort", "a") is not None
        seen.append((ending.job_id, ending.reason, ending.function, left))
        return ending.outcome

    await redis.enqueue_job("double", 1, _job_id="a")
    await redis.zadd("arq:abort", {"a": timestamp_ms() + 1})
    worker = fleet.make(func(double, name="double"), burst=True, allow_abort_jobs=True)
    worker.ends.confirm_end = confirm
    await within_deadline(worker.main())
    assert seen == [("a", ABORTED, "double", (1, True))]
    assert not await redis.exists("arq:job:a", "arq:abort")


async def test_a_running_job_is_aborted_only_once_its_end_is_confirmed(redis, fleet):
    blocking = BlockingJob()
    asked = []

    async def confirm(ending):
        asked.append(await redis.zscore("arq:abort", "a") is not None)
        return RetryLater(20) if len(asked) == 1 else ending.outcome

    job = await redis.enqueue_job("blocking", _job_id="a")
    worker = fleet.start(blocking.function, allow_abort_jobs=True, poll_delay=0.02)
    worker.ends.confirm_end = confirm
    await blocking.wait_started()
    assert await job.abort(timeout=30, poll_delay=0.02) is True
    assert asked == [True, True]
    assert len(blocking.runs) == 1  # the second delivery met the abort before it started
    assert not await redis.exists("arq:job:a", "arq:abort")


async def test_a_job_whose_abort_came_too_late_has_the_end_that_is_recorded(redis, fleet):
    async def confirm(ending):
        return Completed("done before")

    job = await redis.enqueue_job("double", 1, _job_id="a")
    await redis.zadd("arq:abort", {"a": timestamp_ms() + 1})
    worker = fleet.make(func(double, name="double"), burst=True, allow_abort_jobs=True)
    worker.ends.confirm_end = confirm
    await within_deadline(worker.main())
    assert await job.result() == "done before"


@pytest.mark.parametrize("error", [RuntimeError("postgresql is away"), SystemExit(1)])
async def test_a_job_whose_end_cannot_be_confirmed_is_delivered_again(
    redis, fleet, monkeypatch, error
):
    monkeypatch.setattr(ends, "UNCONFIRMED_DELAY_MS", 10)
    asked = []

    async def confirm(ending):
        asked.append(ending.reason)
        if len(asked) == 1:
            raise error
        return ending.outcome

    job = await redis.enqueue_job("double", 1, _job_id="a")
    await redis.zadd("arq:abort", {"a": timestamp_ms() + 1})
    worker = fleet.start(func(double, name="double"), allow_abort_jobs=True, poll_delay=0.02)
    worker.ends.confirm_end = confirm
    with pytest.raises(asyncio.CancelledError):
        await job.result(timeout=30, poll_delay=0.02)
    assert asked == [ABORTED, ABORTED]


async def test_an_error_that_is_not_final_puts_the_job_back(redis, fleet, monkeypatch):
    monkeypatch.setattr(outcomes, "RETRY_DELAY_MIN_MS", 10)
    tries = []

    async def fails_once(ctx):
        tries.append(ctx["job_try"])
        if len(tries) == 1:
            raise RuntimeError("not yet")
        return "done"

    job = await redis.enqueue_job("work")
    worker = fleet.start(func(fails_once, name="work"), poll_delay=0.02)
    worker.runner.is_final = lambda error: not isinstance(error, RuntimeError)
    assert await job.result(timeout=30, poll_delay=0.02) == "done"
    assert tries == [1, 2]


async def test_a_parked_job_leaves_its_slot_to_another_and_takes_the_next_one_that_is_free(
    redis, fleet
):
    blocking, parked, go_on = BlockingJob(), asyncio.Event(), asyncio.Event()
    order = []

    async def parks(ctx):
        assert ctx["slot"].park()
        assert not ctx["slot"].park()
        parked.set()
        await go_on.wait()
        await ctx["slot"].resume()
        await ctx["slot"].resume()  # it has one; nothing to wait for
        order.append("resumed")

    async def new(ctx):
        order.append("new")

    worker = fleet.start(
        *(func(parks, name="parks"), blocking.function, func(new, name="new")), max_jobs=1
    )
    first = await redis.enqueue_job("parks")
    await redis.zadd("arq:queue:bell", {"ring": 0})
    await within_deadline(parked.wait())
    assert worker.free_slots == 1
    await redis.enqueue_job("blocking")
    await redis.zadd("arq:queue:bell", {"ring": 0})
    await blocking.wait_started()
    assert worker.free_slots == 0
    go_on.set()
    last = await redis.enqueue_job("new")
    await redis.zadd("arq:queue:bell", {"ring": 0})
    blocking.unblock()
    await first.result(timeout=30, poll_delay=0.02)
    await last.result(timeout=30, poll_delay=0.02)
    assert order == ["resumed", "new"]
    assert (worker.slots.parked_count, worker.free_slots) == (0, 1)


async def test_only_so_many_jobs_may_park(redis, fleet, monkeypatch):
    monkeypatch.setattr(slots, "PARKED_MAX", 2)
    blocking = BlockingJob()

    async def parks(ctx):
        answers.append(ctx["slot"].park())
        await blocking.function.coroutine(ctx)

    answers = []
    worker = fleet.make(func(parks, name="parks"), max_jobs=1)
    local = []
    for number in range(3):
        local.append(worker.run_local(str(number), "parks"))
        await blocking.wait_started(number + 1)
    assert answers == [True, True, False]
    assert worker.free_slots == 0
    blocking.unblock()
    await within_deadline(asyncio.gather(*local))
    assert (worker.slots.parked_count, worker.free_slots, worker.job_counter) == (0, 1, 0)


async def test_a_parked_job_that_is_cancelled_while_it_waits_for_a_slot_leaves_no_trace(
    redis, fleet
):
    blocking, waits = BlockingJob(), asyncio.Event()

    async def parks(ctx):
        assert ctx["slot"].park()
        await blocking.started.wait()
        waits.set()
        await ctx["slot"].resume()

    worker = fleet.make(func(parks, name="parks"), blocking.function, max_jobs=1)
    parked = worker.run_local("a", "parks")

    async def has_parked():
        return worker.free_slots

    await eventually(has_parked)
    running = worker.run_local("b", "blocking")
    await within_deadline(waits.wait())
    parked.cancel()
    assert isinstance(await within_deadline(parked), RunAgain)
    blocking.unblock()
    await within_deadline(running)
    assert (worker.slots.parked_count, worker.free_slots, worker.job_counter) == (0, 1, 0)
