"""streaQ: `streaq run tests.bench.peer_programs.streaq_noop:worker`.

Its own pickle, uvloop, results off (`ttl=0`), its line of log per job off, acknowledged after the
job ran.
"""

import os

from streaq import Worker  # type: ignore[import-not-found]  # in an environment of its own

from tests.bench.peer_programs.counted import count

worker = Worker(
    redis_url=os.environ["REDIS_URL"], concurrency=64, anyio_kwargs={"use_uvloop": True}
)


@worker.task(name="noop", ttl=0, silent=True)
async def noop():
    count()


async def fill(jobs):
    async with worker:
        for begun in range(0, jobs, 1_000):
            await worker.enqueue_many([noop.enqueue() for _ in range(min(1_000, jobs - begun))])
