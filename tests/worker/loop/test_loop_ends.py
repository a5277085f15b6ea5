"""Ends that Redis cannot take, hooks and errors that raise: no job pays for another."""

import asyncio
import functools
import json

import pytest
from arq.jobs import Job
from arq.worker import func
from redis.exceptions import ConnectionError as RedisConnectionError

from worker.loop import completer as completer_module
from worker.loop.claims import Claims
from worker.loop.completer import BATCH_BYTES_MAX, Completer
from worker.loop.completions import Completion

from .kit import within_deadline


async def fine(ctx):
    return "fine"


FINE = func(fine, name="fine")


class Line:
    """A Redis that resets the connection when it is sent something that it does not take."""

    def __init__(self, redis, takes=bool):
        self._redis = redis
        self._takes = takes
        self.calls = []

    async def __call__(self, script, keys, args):
        self.calls.append(args)
        if not self._takes(args):
            raise RedisConnectionError("reset")
        return await script(self._redis, keys, args)


async def held(redis, count):
    for number in range(count):
        await redis.set(f"arq:in-progress:{number}", "me")
        await redis.zadd("arq:queue", {str(number): 1})


def ends(*sizes):
    return [
        Completion(str(number), 1, "done", b"r" * size, 60_000) for number, size in enumerate(sizes)
    ]


async def store(line, completions):
    completer = Completer(Claims("me", 60), line, lambda _: None)
    await within_deadline(asyncio.gather(*(completer.add(end) for end in completions)))


async def test_one_result_that_redis_does_not_take_costs_no_other_its_own(redis):
    await held(redis, 31)
    line = Line(redis, lambda args: not any(len(arg) > 5_000 for arg in args if type(arg) is bytes))
    await store(line, ends(*[10] * 15, 10_000, *[10] * 15))
    assert await redis.zcard("arq:queue") == 0
    assert not await redis.exists("arq:result:15")  # it ended without its value
    others = [f"arq:result:{number}" for number in range(31) if number != 15]
    assert await redis.exists(*others) == 30


async def test_an_end_that_redis_never_takes_is_given_up_and_the_others_are_stored(redis):
    await held(redis, 10)
    line = Line(redis, lambda args: "5" not in args)
    await store(line, ends(*[10] * 10))
    assert await redis.zrange("arq:queue", 0, -1) == [b"5"]


async def test_a_lost_redis_costs_no_result(redis):
    await held(redis, 1)
    answers = [False] * 12

    line = Line(redis, lambda _: not answers or answers.pop())
    await store(line, ends(10))
    assert await redis.get("arq:result:0") == b"r" * 10
    assert not answers


async def test_ends_are_bounded_by_bytes_as_well_as_by_number(redis):
    await held(redis, 8)
    line = Line(redis)
    await store(line, ends(*[BATCH_BYTES_MAX // 2] * 6, 2 * BATCH_BYTES_MAX, 1))
    sizes = [sum(len(arg) for arg in args if type(arg) is bytes) for args in line.calls]
    assert sizes == [BATCH_BYTES_MAX] * 3 + [2 * BATCH_BYTES_MAX, 1]
    assert await redis.zcard("arq:queue") == 0


async def test_batches_grow_again_after_a_failure(redis, monkeypatch):
    monkeypatch.setattr(completer_module, "BATCH_MAX", 8)
    await held(redis, 40)
    answers = [True] * 100 + [False] * 2  # popped from the end: two failures first
    line = Line(redis, lambda _: answers.pop())
    await store(line, ends(*[1] * 40))
    counts = [(len(args) - 1) // 7 for args in line.calls]
    assert max(counts[-3:]) == 8
    assert await redis.zcard("arq:queue") == 0


class Hook:
    """A hook that is no function, and raises."""

    def __init__(self, error):
        self._error = error

    async def __call__(self, _):
        raise self._error


async def raises(error, ctx):
    raise error


@pytest.mark.parametrize("hook", ["on_job_end", "after_job_end"])
@pytest.mark.parametrize("error", [RuntimeError("no"), SystemExit(1), asyncio.CancelledError()])
@pytest.mark.parametrize("shape", [Hook, lambda error: functools.partial(raises, error)])
async def test_a_hook_of_any_shape_changes_no_jobs_end(redis, fleet, hook, error, shape):
    job = await redis.enqueue_job("fine")
    worker = fleet.make(FINE, burst=True, **{hook: shape(error)})
    await worker.main()
    assert await job.result() == "fine"
    assert (worker.jobs_complete, worker.jobs_retried) == (1, 0)


class HostileError(Exception):
    """An error that raises wherever one looks."""

    def __str__(self):
        raise SystemExit(7)

    __repr__ = __str__

    @property
    def extra(self):
        raise RuntimeError("do not look")

    @property
    def __notes__(self):  # type: ignore[override]
        raise RuntimeError("do not look here either")

    @property  # type: ignore[misc]
    def __class__(self):
        raise RuntimeError("nor here")


runs: list[int] = []


async def hostile(ctx):
    runs.append(ctx["job_try"])
    raise HostileError


async def test_an_error_that_raises_wherever_one_looks_ends_its_job_once(redis, fleet):
    await redis.enqueue_job("hostile", _job_id="a")
    beside = await redis.enqueue_job("fine")
    worker = fleet.make(
        func(hostile, name="hostile"), FINE, burst=True, job_serializer=shown, job_deserializer=None
    )
    await worker.main()
    assert runs == [1]
    assert (worker.jobs_failed, worker.jobs_complete, worker.jobs_retried) == (1, 1, 0)
    assert not await redis.zcard("arq:queue")
    assert await redis.exists(f"arq:result:{beside.job_id}")


def shown(value):
    return json.dumps({"s": value["s"]}).encode()


async def test_a_result_that_cannot_even_be_serialized_ends_its_job(redis, fleet):
    def serialize(value):
        raise SystemExit(7)

    await redis.enqueue_job("fine", _job_id="a")
    worker = fleet.make(FINE, burst=True, job_serializer=serialize)
    await worker.main()
    assert worker.jobs_complete == 1
    assert not await redis.zcard("arq:queue")


async def test_a_result_that_is_kept_for_an_absurd_time_is_kept_and_harms_nobody(redis, fleet):
    jobs = [await redis.enqueue_job(name) for name in ("absurd", "fine", "fine")]
    worker = fleet.make(func(fine, name="absurd", keep_result=10**17), FINE, burst=True)
    await within_deadline(worker.main())
    assert not await redis.zcard("arq:queue")
    assert [await job.result() for job in jobs[1:]] == ["fine"] * 2
    assert await Job(jobs[0].job_id, redis).result() == "fine"
