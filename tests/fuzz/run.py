"""Planting hostile messages before a whole worker, batch by batch, and judging what comes of them.

After each batch every message must have an end: a row in the record, a place in the quarantine, or
a reason to wait that the message itself gives. Nothing else may be left of it in Redis.
"""

import asyncio
import hashlib
import random
import reprlib
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID, uuid5

import hypothesis
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st
from redis.asyncio import Redis
from redis.exceptions import ResponseError
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from db.engine import create_engine, create_sessions
from jobs import Client
from jobs._wire import JOB_ID_NAMESPACE, job_id_of
from tests.fuzz.messages import (
    LONG_LEASE_MS,
    QUARANTINE,
    RECIPES,
    TOLERATED_SIDE_KEYS,
    Command,
    Key,
    Message,
    Noise,
)
from tests.letters import SendLetter, in_the_folder
from worker.app import create_worker
from worker.loop import quarantine
from worker.settings import Settings

HEALTHY_EVERY: Final = 100
HEALTHY_S: Final = 20.0
"""A healthy job is done so soon after it was enqueued, whatever is in the queue before it."""
SETTLED_S: Final = 300.0
"""Every message of a batch has its end so soon after the last was planted."""
QUARANTINE_S: Final = 90.0
"""The quarantine is empty, and old aborts are gone, so soon after the last batch."""
DUTY_FAILURES_MAX: Final = 3
"""A duty of the worker that fails so often in a row is held up."""
LOOK_S: Final = 0.2
OTHER_KEYS_MAX: Final = 12
"""Keys in Redis that belong to no message."""
ABORTS_MAX: Final = 20_000
ABORT_AGE_S: Final = 75.0
"""A little longer than the loop keeps an abort of no job."""

KEYS_BESIDE: Final = st.lists(TOLERATED_SIDE_KEYS, max_size=2)

QUEUE: Final = "arq:queue"
ABORTS: Final = "arq:abort"
SIDE_PREFIXES: Final = ("job", "in-progress", "retry", "claims", "unknown")

QUARANTINED: Final = "quarantined"
REFUSED: Final = "refused by Redis"
WAITS_FOR_TIME: Final = "waits: for its time"
WAITS_FOR_LEASE: Final = "waits: leased elsewhere"
WAITS_FOR_WORKER: Final = "waits: newer worker"
NOISE: Final = "no message"
WAITING: Final = (WAITS_FOR_TIME, WAITS_FOR_LEASE, WAITS_FOR_WORKER)

Recipes = list[tuple[Message | Noise, tuple[Key, ...]]]
"""Of one batch; some with keys that are planted beside a healthy job."""
Progress = Callable[[int, "Result"], None]


@dataclass(slots=True)
class Planted:
    """A message in the queue."""

    redis_id: bytes
    job_ids: tuple[UUID, ...]
    """Those that it may have in the record."""
    labels: list[str]
    recipe: Message
    end: str | None = None

    @property
    def leases(self) -> set[bytes]:
        """The leases of other workers that outlive the batch."""
        keys = self.recipe.side_keys
        return {str(key.value).encode() for key in keys if key.ttl_ms == LONG_LEASE_MS}


@dataclass(slots=True)
class Result:
    """What came of all messages."""

    ends: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """By what was odd: how many came to which end. A message may be odd in several ways."""
    totals: Counter[str] = field(default_factory=Counter)
    """How many messages came to which end."""
    healthy_s: list[float] = field(default_factory=list)
    """How long each healthy job took."""
    events: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """What is wrong, in words; none where all is well."""
    keys_max: int = 0
    quarantine_max: int = 0
    aborts_max: int = 0

    @property
    def messages(self) -> int:
        """How many messages were planted, noise and healthy jobs included."""
        return self.totals.total() + len(self.healthy_s)


def drawn(count: int, seed: int) -> Recipes:
    """Draw recipes, of which one in a hundred has keys for beside a healthy job."""
    recipes: list[Message | Noise] = []
    beside: list[tuple[Key, ...]] = []
    _draw(RECIPES, count, seed, recipes.append)
    _draw(KEYS_BESIDE, count // HEALTHY_EVERY + 1, seed, lambda keys: beside.append(tuple(keys)))
    # Hypothesis varies one example into the next: alike ones would come together.
    random.Random(seed).shuffle(recipes)
    return [
        (recipe, beside[number % len(beside)] if number % (HEALTHY_EVERY - 1) == 0 else ())
        for number, recipe in enumerate(recipes)
    ]


def _draw(
    strategy: st.SearchStrategy[Any], count: int, seed: int, keep: Callable[[Any], object]
) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def draw(one: Any) -> None:
        keep(one)

    draw()


class Fuzz:
    """One run against one worker."""

    def __init__(
        self, redis: Redis, sessions: async_sessionmaker[AsyncSession], healthy_s: float
    ) -> None:
        self.result = Result()
        self._healthy_s = healthy_s
        self.worker_id = ""
        self._redis = redis
        self._sessions = sessions
        self._client = Client(redis)
        self._number = 0
        self._enqueued_at: dict[str, float] = {}
        self._healthy: set[UUID] = set()

    def hear(self, name: str, fields: dict[str, Any]) -> None:
        """Take note of an event of the worker."""
        self.result.events[name] += 1
        # One that a key's change of type met half-way looks again; a slow machine is no fault.
        if (
            name == "duty.failed"
            and fields["failures"] >= DUTY_FAILURES_MAX
            and fields["error"] != "TimeoutError"
        ):
            self._fault(f"the duty {fields['duty']} failed: {fields['error']}")
        if name == "job.finished" and (began := self._enqueued_at.pop(fields["job_id"], None)):
            took_s = time.monotonic() - began
            self.result.healthy_s.append(took_s)
            if fields["state"] != "completed":
                self._fault(f"a healthy job is {fields['state']}: {fields['job_id']}")
            if took_s > self._healthy_s:
                self._fault(f"a healthy job took {took_s:.1f} s")

    def _fault(self, words: str) -> None:
        self.result.faults.append(f"after {self._number} messages, {words}")

    async def batch(self, recipes: Recipes) -> None:
        """Plant a batch, wait for its ends, and look at what is left."""
        planted: dict[bytes, Planted] = {}
        for start in range(0, len(recipes), HEALTHY_EVERY - 1):
            some = recipes[start : start + HEALTHY_EVERY - 1]
            await self._plant([recipe for recipe, _ in some], planted)
            await self._enqueue_healthy(next((keys for _, keys in some if keys), ()))
        await self._settle(planted)
        await self._check_left(planted)

    async def _plant(self, recipes: list[Message | Noise], planted: dict[bytes, Planted]) -> None:
        now_ms = int(time.time() * 1000)
        last_commands: list[tuple[int, Planted]] = []
        commands: list[Command] = []
        for recipe in recipes:
            self._number += 1
            if isinstance(recipe, Noise):
                commands += recipe.planted
                self._count([recipe.label], NOISE)
                continue
            redis_id = recipe.id_of(self._number)
            wanted, labels = recipe.commands(self._number, now_ms)
            commands += wanted
            message = Planted(redis_id, record_ids_of(redis_id), labels, recipe)
            last_commands.append((len(commands) - 1, message))
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            replies = await pipe.execute(raise_on_error=False)
        for place, message in last_commands:
            planted[message.redis_id] = message
            if isinstance(replies[place], Exception):
                message.end = REFUSED

    async def _enqueue_healthy(self, beside: tuple[Key, ...]) -> None:
        self._number += 1
        key = str(self._number)
        redis_id = f"send_letter:{key}".encode()
        async with self._redis.pipeline(transaction=False) as pipe:
            for planted in beside:
                for command in planted.commands(redis_id):
                    pipe.execute_command(*command)
            if self._number % 2:  # meant for an earlier job of this id
                pipe.execute_command("ZADD", ABORTS, "-inf", redis_id)
            await pipe.execute(raise_on_error=False)
        job_id = job_id_of(redis_id.decode())
        self._healthy.add(job_id)
        self._enqueued_at[str(job_id)] = time.monotonic()
        await self._client.enqueue(SendLetter(address=f"{key} Healthy Street"), key=key)

    async def _settle(self, planted: dict[bytes, Planted]) -> None:
        """Wait until every message has its end, and every healthy job is done."""
        deadline = time.monotonic() + SETTLED_S
        open_messages = [message for message in planted.values() if message.end is None]
        while open_messages or self._enqueued_at:
            await asyncio.sleep(LOOK_S)
            await self._judge(open_messages)
            open_messages = [message for message in open_messages if message.end is None]
            if time.monotonic() > deadline:
                break
        for message in open_messages:
            self._fault(f"this message has no end: {shown(message)}")
        for job_id, began in self._enqueued_at.items():
            self._fault(f"a healthy job is not done: {job_id}, {time.monotonic() - began:.1f} s")
        self._enqueued_at.clear()
        for message in planted.values():
            self._count(message.labels, message.end or "NO END")

    def _count(self, labels: list[str], end: str) -> None:
        for label in set(labels):
            self.result.ends[label][end] += 1
        self.result.totals[end] += 1

    async def _judge(self, messages: list[Planted]) -> None:
        """Note the ends that can be seen now."""
        if not messages:
            return
        # The queue is read first: what has left it has its row, or is in the quarantine.
        queue = dict(await self._redis.zrange(QUEUE, 0, -1, withscores=True))
        rows = await self._rows([one for message in messages for one in message.job_ids])
        held = await self._held()
        now_ms = time.time() * 1000
        for message in messages:
            row = next((rows[one] for one in message.job_ids if one in rows), None)
            score = queue.get(message.redis_id)
            if score is not None:
                message.end = await self._reason_to_wait(message, row, is_due=score < now_ms + 500)
            elif row is not None and row.state != "queued":
                message.end = _end_in(row)
            elif row is None and quarantine_field(message.redis_id).encode() in held:
                message.end = QUARANTINED

    async def _held(self) -> set[bytes]:
        with suppress(ResponseError):  # somebody made a key of another type of it
            held: list[bytes] = await self._redis.hkeys(QUARANTINE)  # type: ignore[misc]
            return set(held)
        return set()

    async def _reason_to_wait(self, message: Planted, row: Any, *, is_due: bool) -> str | None:
        """Return why a message may wait; None where only the worker could know."""
        if row is not None:
            return WAITS_FOR_WORKER if row.blocked_by == "newer_worker" and not is_due else None
        if not message.leases and (is_due or message.recipe.score is None):
            return None
        lease: bytes | None = None
        with suppress(ResponseError):
            lease = await self._redis.get(b"arq:in-progress:" + message.redis_id)
        if lease in message.leases:
            return WAITS_FOR_LEASE
        is_ours = lease == self.worker_id.encode()
        return None if is_due or is_ours or message.recipe.score is None else WAITS_FOR_TIME

    async def _rows(self, ids: list[UUID]) -> dict[UUID, Any]:
        query = text(
            "SELECT id, kind, state, blocked_by, payload ? 'set_aside_at_ms' AS set_aside "
            "FROM jobs WHERE id = ANY(:ids)"
        )
        async with self._sessions() as session:
            return {row.id: row for row in await session.execute(query, {"ids": ids})}

    async def _check_left(self, planted: dict[bytes, Planted]) -> None:
        """Take away what rightly waits, and see that nothing else is left."""
        waiting = [message for message in planted.values() if message.end in WAITING]
        ended = [m for m in planted.values() if m.end not in WAITING and m.end != REFUSED]
        await self._take_away([m for m in planted.values() if m.end in (*WAITING, REFUSED)])
        async with self._sessions() as session, session.begin():
            ids = [one for message in waiting for one in message.job_ids]
            await session.execute(text("DELETE FROM jobs WHERE id = ANY(:ids)"), {"ids": ids})
        async with self._redis.pipeline(transaction=False) as pipe:
            for message in ended:
                pipe.exists(*(side_key(prefix, message.redis_id) for prefix in SIDE_PREFIXES))
            counts = await pipe.execute()
        for message, count in zip(ended, counts, strict=True):
            if count:
                self._fault(f"{count} keys are left of this message: {shown(message)}")
        await self._check_growth()

    async def _take_away(self, messages: list[Planted]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for message in messages:
                pipe.zrem(QUEUE, message.redis_id)
                pipe.zrem(ABORTS, message.redis_id)
                pipe.delete(*(side_key(prefix, message.redis_id) for prefix in SIDE_PREFIXES))
            await pipe.execute(raise_on_error=False)

    async def _check_growth(self) -> None:
        result = self.result
        others = []
        async for key in self._redis.scan_iter(count=2_000):
            if key.startswith(b"arq:result:"):
                await self._redis.delete(key)  # as its lifetime would
            else:
                others.append(key)
        result.keys_max = max(result.keys_max, len(others))
        if len(others) > OTHER_KEYS_MAX:
            self._fault(f"{len(others)} keys are left in Redis: {others[:20]}")
        with suppress(Exception):  # a shared key of another type at the moment
            held, _ = await quarantine.count(self._redis, QUEUE)
            result.quarantine_max = max(result.quarantine_max, held)
            result.aborts_max = max(result.aborts_max, await self._redis.zcard(ABORTS))
        if result.aborts_max > ABORTS_MAX:
            self._fault(f"{result.aborts_max} aborts are kept")

    async def finish(self) -> None:
        """Wait until the quarantine is in the record, and check what happened once."""
        for name, check in (
            ("the quarantine is not empty", self._quarantine_is_empty),
            ("old aborts are kept", self._old_aborts_are_gone),
            ("the queue is not rebuilt", self._is_rebuilt),
        ):
            if not await _eventually(check, QUARANTINE_S):
                self._fault(name)
        async with self._sessions() as session:
            letters = await session.execute(
                text("SELECT id, count(*) AS times FROM samples.letters GROUP BY id")
            )
            times = {row.id: row.times for row in letters}
        if doubled := [str(job_id) for job_id, count in times.items() if count > 1]:
            self._fault(f"{len(doubled)} jobs took effect twice: {doubled[:5]}")
        if lost := self._healthy - times.keys():
            self._fault(f"{len(lost)} healthy jobs took no effect")

    async def _quarantine_is_empty(self) -> bool:
        entries = await quarantine.read(self._redis, QUEUE)
        return not entries

    async def _old_aborts_are_gone(self) -> bool:
        now_ms = time.time() * 1000
        members = await self._redis.zrange(ABORTS, 0, -1, withscores=True)
        return all(abs(now_ms - score) < ABORT_AGE_S * 1000 for _, score in members)

    async def _is_rebuilt(self) -> bool:
        run_id: str = (await self._redis.info("server"))["run_id"]
        epoch = await self._redis.get("arq:queue:epoch")
        return bool(epoch == run_id.encode())


def quarantine_field(redis_id: bytes) -> str:
    """Return the name under which the quarantine keeps a member of the queue."""
    if len(redis_id) <= 256:
        return redis_id.hex()
    return "sha1-" + hashlib.sha1(redis_id, usedforsecurity=False).hexdigest()


def record_ids_of(redis_id: bytes) -> tuple[UUID, ...]:
    """Return the ids that a message may have in the record: as a job, and as what is none."""
    set_aside = uuid5(JOB_ID_NAMESPACE, f"quarantine:{quarantine_field(redis_id)}")
    try:
        return job_id_of(redis_id.decode()), set_aside
    except UnicodeDecodeError:
        return (set_aside,)


def side_key(prefix: str, redis_id: bytes) -> bytes:
    """Return the name of a key beside a job."""
    return f"arq:{prefix}:".encode() + redis_id


def _end_in(row: Any) -> str:
    if row.set_aside:
        return QUARANTINED
    if row.state == "dead":
        return "dead: malformed" if row.kind == "malformed" else "dead: does not fit"
    return str(row.state)


def shown(message: Planted) -> str:
    """Return a message in few words."""
    short = reprlib.Repr()
    short.maxlevel, short.maxother, short.maxstring = 9, 400, 80
    recipe = message.recipe
    parts = (message.redis_id, recipe.score, recipe.body, recipe.side_keys, recipe.aborted)
    return " ".join(short.repr(part) for part in parts)


async def _eventually(check: Callable[[], Awaitable[bool]], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not await check():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


@asynccontextmanager
async def _working(
    database_url: str, redis_url: str, fuzz: Fuzz
) -> AsyncIterator["asyncio.Task[None]"]:
    """Run a whole worker until the block ends."""
    settings = Settings(
        DATABASE_URL=database_url,
        REDIS_URL=redis_url,
        health_port=0,
        log_level="ERROR",
    )
    worker = create_worker(settings, handle_signals=False, subscribers=[fuzz.hear])
    fuzz.worker_id = worker.worker_id
    task: asyncio.Task[None] = asyncio.ensure_future(worker.async_run())
    try:
        if not await _eventually(lambda: _is_true(fuzz.result.events["worker.started"] > 0), 60):
            raise RuntimeError("the worker does not start")
        yield task
    finally:
        await worker.close()
        await asyncio.wait({task})


async def _is_true(value: bool) -> bool:  # noqa: FBT001 - it is what is asked about
    return value


async def _drawing(plan: list[tuple[int, int]], executor: Executor) -> AsyncIterator[Recipes]:
    """Draw batch by batch, each while the one before is worked off."""
    loop = asyncio.get_running_loop()
    following = loop.run_in_executor(executor, drawn, *plan[0])
    for one in plan[1:]:
        current, following = following, loop.run_in_executor(executor, drawn, *one)
        yield await current
    yield await following


async def _each(batches: list[Recipes]) -> AsyncIterator[Recipes]:
    for recipes in batches:
        yield recipes


async def run(
    database_url: str,
    redis_url: str,
    *,
    messages: int,
    seed: int,
    batch: int = 500,
    healthy_s: float = HEALTHY_S,
    executor: Executor | None = None,
    progress: Progress = lambda _done, _result: None,
) -> Result:
    """Plant so many messages, and return what came of them.

    They are drawn by the executor while others are worked off; without one, before the worker
    starts. A thread would not do: Hypothesis seeds what others use.
    """
    sizes = [min(batch, messages - start) for start in range(0, messages, batch)]
    # A hundredth is healthy.
    plan = [
        (size - -(-size // HEALTHY_EVERY), seed * 1_000_003 + number)
        for number, size in enumerate(sizes)
    ]
    engine = create_engine(database_url, pool_size=4, application_name="teller-fuzz")
    redis = Redis.from_url(redis_url)
    fuzz = Fuzz(redis, create_sessions(engine), healthy_s)
    batches = _drawing(plan, executor) if executor else _each([drawn(*one) for one in plan])
    try:
        with in_the_folder():
            async with _working(database_url, redis_url, fuzz) as working:
                async for recipes in batches:
                    await fuzz.batch(recipes)
                    progress(fuzz.result.messages, fuzz.result)
                    if working.done():
                        fuzz.result.faults.append("the worker has ended")
                        break
                await fuzz.finish()
    finally:
        await redis.aclose()
        await engine.dispose()
    return fuzz.result
