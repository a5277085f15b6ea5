"""A whole worker inside a test's own event loop."""

import asyncio
from contextlib import asynccontextmanager

from worker.app import create_worker
from worker.settings import Settings

START_S = 30


@asynccontextmanager
async def running_worker(database_url, redis_url, *subscribers):
    """Run our worker on these servers until the block ends."""
    started = asyncio.Event()

    def hear(name, fields):
        if name == "worker.started":
            started.set()

    settings = Settings(DATABASE_URL=database_url, REDIS_URL=redis_url)
    worker = create_worker(settings, handle_signals=False, subscribers=[hear, *subscribers])
    task = asyncio.create_task(worker.async_run())
    try:
        async with asyncio.timeout(START_S):
            await started.wait()
        yield worker
    finally:
        await worker.close()
        await asyncio.wait({task})
