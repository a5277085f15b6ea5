"""The loop beside arq's own: every row measures both in the same run, on the same server.

A measurement returns one sample. Each that runs a worker does so in a fresh process, so that none
inherits another's event loop, memory or connections.
"""

import asyncio
import json
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import arq.worker
import orjson
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func

from jobs._wire import QueuedJob, put
from worker.loop import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

CONCURRENCY = 64
FILL_BATCH = 10_000
STARTED = "bench:started"
WAIT_S = 60
IDLE_GAP_S = 0.05
LONG_QUEUE_DB = 1
DRAIN_ROUNDS = 4


@dataclass
class Row:
    """One line of the table: our samples, those they are compared with, and what to reach."""

    name: str
    unit: str
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    against: str = "arq 0.28"
    target: str = ""

    @property
    def ratio(self) -> float | None:
        """Return ours divided by theirs, by their medians."""
        if not self.ours or not self.theirs:
            return None
        return statistics.median(self.ours) / statistics.median(self.theirs)


@dataclass(frozen=True)
class Effort:
    """How much to do: everything for a table, little for a smoke run."""

    rounds: int
    jobs_ours: int
    jobs_arq: int
    queued_few: int
    queued_many: int
    rings: int
    enqueues: int


FULL = Effort(5, 40_000, 4_000, 10_000, 1_000_000, 150, 20_000)
SMOKE = Effort(1, 2_000, 300, 1_000, 20_000, 10, 500)


def rows(port: int, effort: Effort) -> list[Row]:
    """Measure every row; ours and theirs take turns, so that both meet the same machine."""
    return [
        _throughput(port, effort),
        _drain(port, effort),
        *_pick_up(port, effort),
        _enqueue(port, effort),
        _slots(port, effort),
    ]


def _throughput(port: int, effort: Effort) -> Row:
    row = Row(f"no-op jobs, one process, {CONCURRENCY} at once", "jobs/s", target=">= 20x")
    for _ in range(effort.rounds):
        _call(_fill, port, effort.jobs_arq)
        row.theirs.append(_call(_drain_rate, port, "arq", effort.jobs_arq))
        _call(_fill, port, effort.jobs_ours)
        row.ours.append(_call(_drain_rate, port, "ours", effort.jobs_ours))
    return row


def _drain(port: int, effort: Effort) -> Row:
    """The same number of jobs is drained from a long queue and from a short one, in turn."""
    few, many = effort.queued_few, effort.queued_many
    row = Row(f"drain rate with {many:,} queued", "jobs/s", target=">= 0.9x")
    row.against = f"{few:,} queued"
    _call(_fill, port, many, LONG_QUEUE_DB)
    # A short queue is drained in half a second, so one sample says little.
    for _ in range(DRAIN_ROUNDS * effort.rounds):
        _call(_fill, port, few)
        row.theirs.append(_call(_drain_rate, port, "ours", few))
        row.ours.append(_call(_drain_rate, port, "ours", few, LONG_QUEUE_DB))
    _call(_fill, port, 0, LONG_QUEUE_DB)
    return row


def _pick_up(port: int, effort: Effort) -> list[Row]:
    median = Row("pick-up by an idle worker, p50", "ms", target="<= 5 ms")
    tail = Row("pick-up by an idle worker, p99", "ms", target="<= 20 ms")
    for _ in range(effort.rounds):
        for samples, rest in (("ours", effort.rings), ("arq", max(effort.rings // 10, 5))):
            waits = sorted(_call(_pick_up_ms, port, samples, rest))
            p50, p99 = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
            (median.ours if samples == "ours" else median.theirs).append(p50)
            (tail.ours if samples == "ours" else tail.theirs).append(p99)
    return [median, tail]


def _enqueue(port: int, effort: Effort) -> Row:
    row = Row("enqueue in bulk, one client", "jobs/s", target=">= 10x")
    for _ in range(effort.rounds):
        row.theirs.append(_call(_enqueue_one_by_one, port, effort.enqueues // 10))
        row.ours.append(_call(_fill, port, effort.enqueues))
    return row


def _slots(port: int, effort: Effort) -> Row:
    row = Row("jobs running, 3 workers x 4 slots", "jobs", target="12")
    for _ in range(effort.rounds):
        row.theirs.append(_call(_peak, port, "arq"))
        row.ours.append(_call(_peak, port, "ours"))
    return row


# What runs in a process of its own


def _call(measure: "Callable[..., Any]", *args: object) -> Any:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, *args).result()


def _fill(port: int, count: int, database: int = 0) -> float:
    """Empty a database, put no-ops into its queue, and return how many a second."""

    async def fill(redis: ArqRedis) -> float:
        await redis.flushdb()
        start = time.perf_counter()
        for begun in range(0, count, FILL_BATCH):
            batch = range(min(FILL_BATCH, count - begun))
            await put(redis, [QueuedJob(uuid4().hex, "noop") for _ in batch])
        elapsed = time.perf_counter() - start
        await _rewritten(redis)
        return count / elapsed

    return _with_client(port, fill, database)


async def _rewritten(redis: ArqRedis) -> None:
    """Wait until Valkey has compacted its log, which takes a core while it lasts."""
    while (await redis.info("persistence"))["aof_rewrite_in_progress"]:  # noqa: ASYNC110 - Valkey sets no event
        await asyncio.sleep(0.1)


def _enqueue_one_by_one(port: int, count: int) -> float:
    async def enqueue(redis: ArqRedis) -> float:
        await redis.flushdb()
        start = time.perf_counter()
        for _ in range(count):
            await redis.enqueue_job("noop")
        return count / (time.perf_counter() - start)

    return _with_client(port, enqueue)


def _drain_rate(
    port: int, kind: str, count: int, database: int = 0, keep_result_s: int = 3_600
) -> float:
    """Run `count` no-ops, and return how many a second; starting and stopping do not count."""
    started: list[float] = []

    async def on_startup(_: dict[Any, Any]) -> None:
        started.append(time.perf_counter())

    # arq counts some jobs twice and would stop short; its queue holds no more than it is to run.
    limit = count if kind == "ours" else -1
    redis_settings = RedisSettings(port=port, database=database)
    worker = _worker(
        port,
        kind,
        redis_settings=redis_settings,
        burst=True,
        max_burst_jobs=limit,
        keep_result=keep_result_s,
        on_startup=on_startup,
    )
    worker.loop.run_until_complete(worker.main())
    elapsed = time.perf_counter() - started[0]
    if worker.jobs_complete != count:
        raise RuntimeError(f"{worker.jobs_complete} of {count} jobs were run")
    worker.loop.run_until_complete(worker.close())
    return count / elapsed


def _pick_up_ms(port: int, kind: str, count: int) -> list[float]:
    """Return how long each of `count` jobs waits that meets an idle worker."""

    async def measure(redis: ArqRedis) -> list[float]:
        await redis.flushdb()
        worker = _worker(port, kind, max_jobs=10)
        main = asyncio.ensure_future(worker.main())
        waits = [await _one_pick_up(redis, kind) for _ in range(count)]
        await _stop(worker, main)
        return waits[1:]  # the first one meets a worker that is not up yet

    return _with_client(port, measure)


async def _one_pick_up(redis: ArqRedis, kind: str) -> float:
    # Long enough for a worker to be idle again, and out of step with anyone's poll.
    await asyncio.sleep(IDLE_GAP_S * (1 + uuid4().int % 1000 / 1000))
    sent = time.time()
    if kind == "ours":
        await put(redis, [QueuedJob(uuid4().hex, "stamp")])
    else:
        await redis.enqueue_job("stamp")
    popped: Any = redis.blpop([STARTED], WAIT_S)
    _, started = await popped
    return (float(started) - sent) * 1000


def _peak(port: int, kind: str) -> float:
    """Return how many of 12 jobs three workers of four slots run at once."""

    async def measure(redis: ArqRedis) -> float:
        await redis.flushdb()
        await put(redis, [QueuedJob(uuid4().hex, "hold") for _ in range(12)])
        workers = [_worker(port, kind, max_jobs=4, queue_read_limit=4) for _ in range(3)]
        mains = [asyncio.ensure_future(worker.main()) for worker in workers]
        peak = 0
        for _ in range(100):
            await asyncio.sleep(0.02)
            peak = max(peak, sum(len(worker.job_tasks) for worker in workers))
        for worker, main in zip(workers, mains, strict=True):
            await _stop(worker, main)
        return peak

    return _with_client(port, measure)


async def _stop(worker: arq.worker.Worker, main: "asyncio.Future[None]") -> None:
    main.cancel()
    await asyncio.wait({main})
    with suppress(asyncio.CancelledError):  # arq lets the cancellation of its jobs through
        await worker.close()


async def noop(_: dict[Any, Any]) -> None:
    """Do nothing."""


async def stamp(ctx: dict[Any, Any]) -> None:
    """Say when the job started."""
    await ctx["redis"].rpush(STARTED, time.time())


async def hold(_: dict[Any, Any]) -> None:
    """Take a slot for the length of the measurement."""
    await asyncio.sleep(3)


def _worker(port: int, kind: str, **options: Any) -> arq.worker.Worker:
    cls = Worker if kind == "ours" else arq.worker.Worker
    settings = {
        "redis_settings": RedisSettings(port=port),
        "handle_signals": False,
        "max_jobs": CONCURRENCY,
        "job_serializer": lambda value: orjson.dumps(value, default=repr),
        "job_deserializer": orjson.loads,
    }
    functions: dict[str, Any] = {"noop": noop, "stamp": stamp, "hold": hold}
    named = [func(function, name=name) for name, function in functions.items()]
    return cls(named, **{**settings, **options})


def _with_client(
    port: int, use: "Callable[[ArqRedis], Coroutine[Any, Any, T]]", database: int = 0
) -> T:
    async def run() -> T:
        redis = ArqRedis(host="127.0.0.1", port=port, db=database, job_serializer=_to_json)
        try:
            return await use(redis)
        finally:
            await redis.aclose(close_connection_pool=True)

    return asyncio.run(run())


def _to_json(value: object) -> bytes:
    return json.dumps(value).encode()
