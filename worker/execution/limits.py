"""Limits across all workers: so many jobs of a kind, or of one key, at a time, and at a rate.

A job that is limited takes a permit in Redis before it runs, and gives it back at its end. While it
waits it occupies nothing: it goes back to the queue, and is brought forward when a permit is free.
A permit is a lease, so a dead worker's comes back. Limits protect others; that a job takes effect
once does not depend on them. Without Redis each process keeps to its share of a limit, about.
"""

import asyncio
import hashlib
import time
from collections import Counter
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redis.exceptions import RedisError

from jobs._queue import queue_key
from jobs._wire import BELL_SUFFIX
from worker.execution.limit_scripts import RELEASE, RENEW, TAKE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from contextlib import AbstractAsyncContextManager

    from redis.asyncio import Redis

    from jobs import Job, Payload
    from jobs._job import Policy
    from worker.execution.delivery import Delivery

LEASE_MS: Final = 10_000
"""A dead worker's permits are free after this time."""
RENEW_INTERVAL_S: Final = 2.5
KEPT_FOR_NEXT_MS: Final = 5_000
"""How long a permit waits for the job that it was promised to."""
CALL_TIMEOUT_S: Final = 1.5
SHARE_WAIT_S: Final = 1.0
"""When a job asks again that this process's share has no room for."""
PREFIX: Final = "teller:limit:"
FREE: "Final[nullcontext[float]]" = nullcontext(0.0)


@dataclass(frozen=True, slots=True)
class Limit:
    """The limit that one job is under."""

    key: str
    """Of the limit, in Redis."""
    member: str
    """The job: its queue's key, a line feed, its id."""
    policy: "Policy"

    @property
    def keys(self) -> tuple[str, ...]:
        """Return the limit's keys, in the order of the scripts."""
        return tuple(f"{self.key}:{part}" for part in ("held", "waiting", "rate", "due"))


class Share:
    """What this process lets through of each limit while there is no Redis."""

    def __init__(self, workers: "Callable[[], int]") -> None:
        self._workers = workers
        self._running: Counter[str] = Counter()
        self._next_at: dict[str, float] = {}

    def take(self, limit: Limit) -> float:
        """Let a job through and return 0; else in how many seconds to ask again."""
        workers, policy = max(1, self._workers()), limit.policy
        if policy.limit and self._running[limit.key] >= max(1, policy.limit // workers):
            return SHARE_WAIT_S
        if policy.rate:
            now = time.monotonic()
            next_at = self._next_at.get(limit.key, 0.0)
            wait_s = next_at - policy.rate.tolerance_ms / 1000 - now
            if wait_s > 0:
                return wait_s
            interval_s = policy.rate.interval_ms / 1000 * workers
            self._next_at[limit.key] = max(next_at, now) + interval_s
        self._running[limit.key] += 1
        return 0.0

    def release(self, limit: Limit) -> None:
        """Note that a job that was let through has ended."""
        self._running[limit.key] -= 1
        if not self._running[limit.key]:
            del self._running[limit.key]


class Limits:
    """One process's permits; renewing them is a background duty."""

    name = "limits"
    step_timeout_s = 8.0

    def __init__(
        self,
        redis: "Redis | None",
        queue_name: str,
        *,
        is_available: "Callable[[], bool]" = lambda: True,
        workers: "Callable[[], int]" = lambda: 1,
    ) -> None:
        """Hold none yet.

        Args:
            redis: where permits are counted; None: this process alone counts its own.
            queue_name: the key of the queue `default`.
            is_available: returns whether Redis is known to answer.
            workers: returns how many processes share a limit while there is no Redis.
        """
        self._redis = redis
        self._queue_name = queue_name
        self._is_available = is_available
        self._share = Share(workers)
        self._held: set[Limit] = set()
        self._releases: set[asyncio.Task[None]] = set()

    def hold(
        self, job: "Job", payload: "Payload", delivery: "Delivery"
    ) -> "AbstractAsyncContextManager[float]":
        """Return what to enter around a run.

        It gives 0 where the job may run; else in how many seconds to ask again.
        """
        policy = job.policy
        if policy.limit is None and policy.rate is None:
            return FREE
        return self._hold(self._limit_of(policy, payload, delivery))

    async def step(self) -> float:
        """Renew the leases of all permits, and return the seconds until the next time."""
        for limit in list(self._held):
            with suppress(RedisError, OSError):
                await self._run(RENEW, limit.keys[:1], LEASE_MS, limit.member)
        return RENEW_INTERVAL_S

    def _limit_of(self, policy: "Policy", payload: "Payload", delivery: "Delivery") -> Limit:
        job = delivery.job
        key = f"{PREFIX}{job.kind}"
        if policy.per is not None:
            # A key in Redis is in many hands: it tells nothing of the payload.
            digest = hashlib.blake2b(str(policy.per(payload)).encode(), digest_size=16)
            key += f":{digest.hexdigest()}"
        queue = queue_key(job.queue, self._queue_name)
        return Limit(key, f"{queue}\n{job.redis_id or job.id}", policy)

    @asynccontextmanager
    async def _hold(self, limit: Limit) -> "AsyncIterator[float]":
        wait_s = await self._take(limit)
        if wait_s is not None:
            if wait_s:
                yield wait_s
                return
            try:
                yield 0.0
            finally:
                self._held.discard(limit)
                self._release_soon(limit)
            return
        wait_s = self._share.take(limit)
        try:
            yield wait_s
        finally:
            if not wait_s:
                self._share.release(limit)

    async def _take(self, limit: Limit) -> float | None:
        """Return 0 for a permit, else in how many seconds to ask again; None without Redis."""
        if self._redis is None or not self._is_available():
            return None
        rate = limit.policy.rate
        times = (rate.interval_ms, rate.tolerance_ms) if rate else (0, 0)
        try:
            wait_ms = await self._run(
                *(TAKE, limit.keys, limit.member, LEASE_MS, limit.policy.limit or 0, *times)
            )
        except (RedisError, OSError):
            return None
        if not wait_ms and limit.policy.limit:
            self._held.add(limit)
        return wait_ms / 1000

    def _release_soon(self, limit: Limit) -> None:
        """Give a permit back beside the job's end, which need not wait for that."""
        if limit.policy.limit is None:
            return
        task = asyncio.get_running_loop().create_task(self._release(limit))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, limit: Limit) -> None:
        with suppress(RedisError, OSError):  # its lease lapses then
            await self._run(RELEASE, limit.keys[:2], limit.member, KEPT_FOR_NEXT_MS, BELL_SUFFIX)

    async def _run(self, script: str, keys: "tuple[str, ...]", *args: str | float) -> int:
        assert self._redis is not None  # noqa: S101 - for the type checker
        async with asyncio.timeout(CALL_TIMEOUT_S):
            answer: int = await self._redis.execute_command(  # type: ignore[no-untyped-call]
                "EVAL", script, len(keys), *keys, *args
            )
        return answer
