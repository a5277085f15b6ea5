"""Shared by the loop's tests: waits with a deadline, jobs that block, workers to kill."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from arq.connections import RedisSettings
from arq.worker import func

from worker.loop import Worker

ROOT = Path(__file__).parents[3]
DEADLINE_S = 30.0
NEVER_S = 3600.0
# For workers whose jobs come by `ring`, which writes JSON and never pickle.
JSON = {"job_serializer": lambda value: json.dumps(value).encode(), "job_deserializer": json.loads}


class ShortLeaseWorker(Worker):
    """A worker whose leases are short, so that tests need not wait for long ones."""

    lease_s = 2.0


async def eventually(check, *, deadline_s=DEADLINE_S):
    """Return what `check` returns once it is true; fail after the deadline."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        answer = await check()
        if answer:
            return answer
        await asyncio.sleep(0.01)
    raise AssertionError(f"{check} did not come true within {deadline_s}s")


async def within_deadline(awaitable, deadline_s=DEADLINE_S):
    async with asyncio.timeout(deadline_s):
        return await awaitable


async def listening(redis, count):
    """Wait until so many workers are idle and wait at the bell."""

    async def blocked():
        return (await redis.info("clients"))["blocked_clients"] == count

    await eventually(blocked)


class BlockingJob:
    """A job function that records its runs, and blocks until the test unblocks it."""

    def __init__(self):
        self.runs = []
        self.running = 0
        self.peak = 0
        self.started = asyncio.Event()
        self._unblocked = asyncio.Event()

    def unblock(self):
        self._unblocked.set()

    @property
    def function(self):
        async def blocking(ctx, *args):
            self.runs.append((ctx["job_id"], ctx["job_try"]))
            self.running += 1
            self.peak = max(self.peak, self.running)
            self.started.set()
            try:
                await self._unblocked.wait()
            finally:
                self.running -= 1
            return list(args)

        return func(blocking, name="blocking")

    async def wait_started(self, count=1):
        async def enough():
            return len(self.runs) >= count

        await eventually(enough)


class Fleet:
    """Workers that run in this event loop and are closed at the end of a test."""

    def __init__(self, port):
        self.port = port
        self.workers = []
        self.mains = []

    @property
    def settings(self):
        return RedisSettings(port=self.port, conn_retries=0)

    def make(self, *functions, cls=Worker, **options):
        options = {"redis_settings": self.settings, "handle_signals": False, **options}
        worker = cls(list(functions), **options)
        self.workers.append(worker)
        return worker

    def start(self, *functions, **options):
        worker = self.make(*functions, **options)
        self.mains.append(asyncio.ensure_future(worker.main()))
        return worker

    async def close(self):
        for worker in self.workers:
            await within_deadline(worker.close())
        for main in self.mains:
            main.cancel()
            with suppress(asyncio.CancelledError):
                await main


class WorkerProcess:
    """A worker in a process of its own, for signals that end processes."""

    def __init__(self, port, **environment):
        env = {**os.environ, "PYTHONPATH": str(ROOT), "PORT": str(port), **environment}
        program = Path(__file__).with_name("program.py")
        self._process = subprocess.Popen([sys.executable, str(program)], env=env)

    @property
    def pid(self):
        return self._process.pid

    def send(self, signum):
        self._process.send_signal(signum)

    def wait(self):
        return self._process.wait(DEADLINE_S)

    async def exit_code(self):
        return await asyncio.to_thread(self.wait)

    def end(self):
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)
        self._process.kill()
        self._process.wait(DEADLINE_S)
