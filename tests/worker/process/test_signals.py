"""A stop in the first instants of `python -m worker run` ends it well, however early it comes."""

import asyncio
import os
import re
import signal
import sys
from itertools import cycle
from pathlib import Path

import pytest

from tests.examples import THOROUGH

pytestmark = [pytest.mark.slow, pytest.mark.examples]

PROJECT = Path(__file__).parents[3]
DEADLINE_S = 120
AT_ONCE = 4
"""Processes that start at the same time."""

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
OFFSETS_S = [0, 0.1, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0] if THOROUGH else [0, 0.3, 0.7, 1.4]
NOBODY = {
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
    "REDIS_URL": "redis://127.0.0.1:9",
}


async def run(*options, stdout=asyncio.subprocess.DEVNULL, preexec=None, **environment):
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "run", *options),
        cwd=PROJECT,
        env={**os.environ, "TELLER_HEALTH_PORT": "0", **environment},
        stdout=stdout,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        # Whoever runs these tests may ignore SIGHUP, as `nohup` does.
        preexec_fn=preexec or (lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL)),
    )


def blocks(pid, number):
    """Tell whether a process has blocked a signal."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^SigBlk:\s*([0-9a-f]+)", status, re.MULTILINE)
    assert found
    return bool(int(found[1], 16) >> (number - 1) & 1)


async def until(condition):
    while True:
        if condition():
            return
        await asyncio.sleep(0.001)


async def end_after(process, number, offset_s):
    """Send a signal so long after the first instruction, and return the exit code."""
    async with asyncio.timeout(DEADLINE_S):
        await until(lambda: blocks(process.pid, number))
        await asyncio.sleep(offset_s)
        process.send_signal(number)
        try:
            return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()


async def codes(*options, offsets_s, **environment):
    """Start a process for every offset, and return the exit code of each that is not 0."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(number, offset_s):
        async with turn:
            process = await run(*options, **environment)
            return number.name, offset_s, await end_after(process, number, offset_s)

    each = [one(*pair) for pair in zip(cycle(SIGNALS), offsets_s, strict=False)]
    return [found for found in await asyncio.gather(*each) if found[-1] != 0]


async def test_while_it_waits_for_its_servers():
    assert await codes(offsets_s=OFFSETS_S, **NOBODY) == []


async def test_while_it_starts_and_when_it_has_started(database_url, redis_url):
    servers = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    assert await codes(offsets_s=OFFSETS_S[1::2], **servers) == []


async def test_while_several_start_under_a_supervisor():
    assert await codes("--processes", "2", offsets_s=OFFSETS_S[::3], **NOBODY) == []


@pytest.mark.parametrize("options", [[], ["--processes", "2"]], ids=["one", "several"])
async def test_who_started_it_may_have_it_ignore_the_end_of_its_terminal(options):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = await run(*options, preexec=ignore, **NOBODY)
    async with asyncio.timeout(DEADLINE_S):
        await until(lambda: blocks(process.pid, signal.SIGTERM))
        await until(lambda: not blocks(process.pid, signal.SIGTERM))
        process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.5)
        assert process.returncode is None
        process.terminate()
        assert await process.wait() == 0
