"""taskiq: `taskiq worker tests.bench.peer_programs.taskiq_noop:broker`.

The stream broker, the one of taskiq-redis that acknowledges; its own JSON; no result backend.
"""

import asyncio
import os

from taskiq_redis import (  # type: ignore[import-not-found]  # in an environment of its own
    RedisStreamBroker,
)

from tests.bench.peer_programs.counted import count

broker = RedisStreamBroker(url=os.environ["REDIS_URL"])


@broker.task(task_name="noop")
async def noop():
    count()


async def fill(jobs):
    await broker.startup()  # makes the consumer group, which sees only what comes after it
    for begun in range(0, jobs, 100):
        await asyncio.gather(*(noop.kiq() for _ in range(min(100, jobs - begun))))
    await broker.shutdown()
