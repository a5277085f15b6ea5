"""SAQ: `saq tests.bench.peer_programs.saq_noop.settings`.

Its own JSON, jobs deleted when they end (`ttl=-1`), acknowledged after they ran.
"""

import asyncio
import os

import uvloop
from saq import Queue  # type: ignore[import-not-found]  # in an environment of its own

from tests.bench.peer_programs.counted import count

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
queue = Queue.from_url(os.environ["REDIS_URL"])


async def noop(_):
    count()


async def fill(jobs):
    for begun in range(0, jobs, 500):
        await asyncio.gather(
            *(queue.enqueue("noop", ttl=-1) for _ in range(min(500, jobs - begun)))
        )
    await queue.disconnect()


settings = {"queue": queue, "functions": [noop], "concurrency": 64}
