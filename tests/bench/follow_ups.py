"""How long it takes from a job's begin to that of the job that it enqueues: a chain of ten."""

import asyncio
import statistics
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

from db.engine import create_engine
from jobs._wire import QueuedJob, put
from tests.bench.loop import Row
from tests.letters import add_samples, file, in_the_folder
from tests.worker.running import running_worker
from worker.app import migrate_database

if TYPE_CHECKING:
    from jobs import Context
    from tests.letters import SendLetter
    from worker.dev.servers import Stack

LENGTH: Final = 10
CHAINS: Final = 200
WAIT_S: Final = 60


async def chained(stack: "Stack", *, smoke: bool = False) -> Row:
    """Return the median milliseconds of a hop, per chain."""
    row = Row(f"follow-up chain of {LENGTH}, a hop", "ms", against="", target="3 ms")
    engine = create_engine(stack.database_url, pool_size=2, application_name="teller-bench")
    await migrate_database(engine)
    async with engine.begin() as connection:
        await add_samples(connection)
    await engine.dispose()
    chain = _Chain()
    post, file.post = file.post, chain.post
    try:
        with in_the_folder():
            async with (
                Redis.from_url(stack.redis_url) as redis,
                running_worker(stack.database_url, stack.redis_url),
            ):
                for number in range(3 if smoke else CHAINS):
                    begun_at = await chain.run(redis, f"chain {number}")
                    hops = [later - earlier for earlier, later in pairwise(begun_at)]
                    row.ours.append(statistics.median(hops) * 1000)
    finally:
        file.post = post
    return row


class _Chain:
    """Letters of which each enqueues the next, one page shorter, until there is one page."""

    def __init__(self) -> None:
        self._begun_at: list[float] = []
        self._over = asyncio.Event()

    async def run(self, redis: Redis, address: str) -> list[float]:
        """Return when each job of a new chain began."""
        self._begun_at.clear()
        self._over.clear()
        payload = f'{{"address": "{address}", "pages": {LENGTH + 1}}}'
        await put(redis, [QueuedJob(address, "send_letter", payload)])
        async with asyncio.timeout(WAIT_S):
            await self._over.wait()
        return self._begun_at

    async def post(self, ctx: "Context", letter: "SendLetter") -> None:
        """Note the time, and enqueue the next."""
        self._begun_at.append(time.perf_counter())
        if letter.pages > 1:
            await ctx.enqueue(letter.model_copy(update={"pages": letter.pages - 1}))
        else:
            self._over.set()
