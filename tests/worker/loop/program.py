"""A worker to be killed, frozen and stopped: it tells Redis what it runs."""

import asyncio
import os
import time

from arq.connections import RedisSettings
from arq.worker import func
from redis import Redis

from worker.loop import Worker

RUNS = "test:runs"
OPEN = "test:open"
PORT = int(os.environ.get("PORT", "0"))


class ShortLeaseWorker(Worker):
    lease_s = float(os.environ.get("LEASE_S", "2"))


async def hold(ctx):
    """Run until the test sets OPEN."""
    run = f"{ctx['job_id']} {os.getpid()} {ctx['job_try']}"
    await ctx["redis"].rpush(RUNS, run)
    while not await ctx["redis"].exists(OPEN):  # noqa: ASYNC110 - the signal comes through Redis
        await asyncio.sleep(0.02)
    return os.getpid()


async def block(ctx):
    """Block the event loop until the test sets OPEN, as jobs should not."""
    await ctx["redis"].rpush(RUNS, f"{ctx['job_id']} {os.getpid()} {ctx['job_try']}")
    with Redis(port=PORT) as redis:
        while not redis.exists(OPEN):
            time.sleep(0.02)  # noqa: ASYNC251 - that is the point
    return os.getpid()


async def whoami(ctx):
    return os.getpid()


if __name__ == "__main__":
    ShortLeaseWorker(
        [func(hold, name="hold", timeout=60), block, whoami],
        redis_settings=RedisSettings(port=PORT),
        job_completion_wait=int(os.environ.get("WAIT_S", "0")),
        max_tries=int(os.environ.get("MAX_TRIES", "5")),
        poll_delay=float(os.environ.get("POLL_S", "0.1")),
    ).run()
