"""A worker process as an orchestrator sees it: blocked, without Redis, draining, and several."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url, text

from db.workers import Workers
from tests.letters import SAMPLES
from worker.monitoring.heartbeat import SILENCE_MAX

PROJECT = Path(__file__).parents[3]
WAIT_S = 60
HEAVY = {"sqlalchemy", "asyncpg", "arq", "redis", "h11", "prometheus_client"}

# From SIGUSR1 to SIGUSR2 it computes, as a careless handler would.
BLOCKABLE = """
import signal
from worker.app import create_worker
from worker.settings import load_settings

enough = []

def compute(*_):
    while not enough:
        pass

worker = create_worker(load_settings())
signal.signal(signal.SIGUSR1, compute)
signal.signal(signal.SIGUSR2, lambda *_: enough.append(True))
worker.run()
"""


# As `python -m worker.process`, but with the letters in the folder of jobs.
WITH_LETTERS = f"""
import runpy
import jobs
jobs.__path__.append({SAMPLES!r})
runpy.run_module("worker.process", run_name="__main__")
"""


WHAT_CHECK_IMPORTS = """
import runpy, sys
sys.argv = ["worker", "check"]
try:
    runpy.run_module("worker", run_name="__main__")
except SystemExit:
    print(*sys.modules)
"""


class Proxy:
    """A way to Redis that can be cut."""

    def __init__(self, url):
        self._target = make_url(url)
        self._server: Any = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def open(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self):
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await self._server.wait_closed()

    async def _serve(self, reader, writer):
        upstream = await asyncio.open_connection(self._target.host, self._target.port or 6379)
        self._writers |= {writer, upstream[1]}
        await asyncio.gather(_pipe(reader, upstream[1]), _pipe(upstream[0], writer))
        self._writers -= {writer, upstream[1]}


async def _pipe(reader, writer):
    try:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@pytest.fixture
async def proxy(redis, redis_url):
    proxy = Proxy(redis_url)
    await proxy.open()
    yield proxy
    await proxy.cut()


@pytest.fixture
def environment(database_url, redis_url, proxy):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = make_url(redis_url).set(host="127.0.0.1", port=proxy.port)
    return {
        **os.environ,
        "DATABASE_URL": database_url,
        "REDIS_URL": url.render_as_string(hide_password=False),
        "TELLER_HEALTH_PORT": str(port),
        "TELLER_LOOP_BLOCKED_MAX_S": "1",
        "PYTHONPATH": str(PROJECT),
    }


@contextmanager
def process(environment, *command):
    """Run a worker until the block ends, at the latest."""
    with subprocess.Popen(
        [sys.executable, *command], env=environment, cwd=PROJECT, stderr=subprocess.DEVNULL
    ) as worker:
        try:
            yield worker
        finally:
            if worker.poll() is None:
                worker.kill()


def get(environment, path):
    """Return a page's status and content; no status where nobody answers."""
    url = f"http://127.0.0.1:{environment['TELLER_HEALTH_PORT']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())
    except OSError:
        return None, {}


async def until(environment, path, wanted):
    """Ask until the answer is the wanted one."""
    deadline = time.monotonic() + WAIT_S
    while True:
        answer = await asyncio.to_thread(get, environment, path)
        if wanted(*answer):
            return answer
        assert time.monotonic() < deadline, answer
        await asyncio.sleep(0.05)


def is_ready(status, _):
    return status == 200


def check(environment, *options, directory=PROJECT):
    done = subprocess.run(
        [sys.executable, "-m", "worker", "check", *options],
        env=environment,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


async def test_a_blocked_event_loop_is_not_live_and_recovers(environment):
    with process(environment, "-c", BLOCKABLE) as worker:
        await until(environment, "/readyz", is_ready)
        assert check(environment, "--live")[0] == 0
        worker.send_signal(signal.SIGUSR1)
        await until(environment, "/livez", lambda status, _: status == 503)
        code, said = check(environment, "--live")
        assert (code, "event_loop_blocked_s" in said) == (1, True)
        worker.send_signal(signal.SIGUSR2)
        await until(environment, "/livez", lambda status, _: status == 200)
        assert check(environment)[0] == 0


async def test_without_redis_it_is_degraded_and_not_dead(environment, proxy):
    with process(environment, "-m", "worker", "run"):
        await until(environment, "/readyz", is_ready)
        await proxy.cut()
        status, said = await until(
            environment, "/readyz", lambda _, said: said.get("mode") == "degraded"
        )
        assert (status, said["ready"]) == (200, True)
        assert get(environment, "/livez")[0] == 200
        assert get(environment, "/status")[1]["process"]["redis_up"] is False
        await proxy.open()
        await until(environment, "/readyz", lambda _, said: said.get("mode") == "normal")


async def test_a_draining_worker_is_live_and_not_ready_and_is_marked_as_stopped(
    environment, sessions
):
    with process(environment, "-c", WITH_LETTERS) as worker:
        await until(environment, "/readyz", is_ready)
        async with sessions() as blocker, blocker.begin():
            await blocker.execute(text("LOCK TABLE samples.letters IN ACCESS EXCLUSIVE MODE"))
            async with sessions() as session, session.begin():
                await session.execute(
                    text("""SELECT enqueue_job('send_letter', '{"address": "12 High Street"}')""")
                )
            await until(
                environment,
                "/status",
                lambda _, said: said.get("process", {}).get("jobs_running") == 1,
            )
            worker.send_signal(signal.SIGTERM)
            status, said = await until(environment, "/readyz", lambda status, _: status != 200)
            assert (status, said["reasons"]) == (503, ["draining"])
            assert get(environment, "/livez")[0] == 200
        assert await asyncio.to_thread(worker.wait, WAIT_S) == 0
    async with sessions() as session:
        fleet = await Workers(session).fleet(SILENCE_MAX)
        await session.execute(text("DELETE FROM workers"))
        await session.commit()
    assert [seen.state for seen in fleet if seen.pid == worker.pid] == ["stopped"]


async def test_one_stuck_process_of_several_makes_all_not_live(environment):
    with process(environment, "-m", "worker", "run", "--processes", "2") as supervisor:
        _, said = await until(environment, "/readyz", is_ready)
        assert {"process_0", "process_1"} <= set(said)
        processes = get(environment, "/status")[1]["processes"]
        os.kill(processes[0]["pid"], signal.SIGSTOP)
        try:
            _, said = await until(environment, "/livez", lambda status, _: status == 503)
            assert said["process_0"] == {"reasons": ["does not answer"]}
            assert said["process_1"] == {"live": True}
            assert check(environment, "--live")[0] == 1
        finally:
            os.kill(processes[0]["pid"], signal.SIGCONT)
        await until(environment, "/livez", lambda status, _: status == 200)
        supervisor.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(supervisor.wait, WAIT_S) == 0


async def test_a_check_says_what_to_do_when_nobody_answers(environment):
    code, said = check(environment)

    assert (code, "start one with `python -m worker run`" in said) == (1, True)


async def test_a_check_says_that_health_is_switched_off(environment):
    code, said = check({**environment, "TELLER_HEALTH_PORT": "0"})

    assert (code, "set TELLER_HEALTH_PORT" in said) == (1, True)


@pytest.mark.parametrize("port", ["http", "65536", "-1", "8089x", "٨٠٨٩", "9" * 5_000])
async def test_a_check_says_what_is_wrong_with_a_port(environment, port):
    code, said = check({**environment, "TELLER_HEALTH_PORT": port})

    assert code == 1
    assert said.count("\n") == 1
    assert said.startswith("error: TELLER_HEALTH_PORT is a number from 0 to 65535, not ")


async def test_a_check_finds_the_port_in_the_env_file_as_the_worker_does(
    environment, tmp_path, unused_tcp_port
):
    given = {name: value for name, value in environment.items() if name != "TELLER_HEALTH_PORT"}
    (tmp_path / ".env").write_text(f"# ours\nTELLER_HEALTH_PORT='{unused_tcp_port}'\n")

    assert f"127.0.0.1:{unused_tcp_port}" in check(given, directory=tmp_path)[1]


def test_a_check_is_quick_because_it_imports_no_heavy_library_and_little_of_the_worker(environment):
    done = subprocess.run(
        [sys.executable, "-c", WHAT_CHECK_IMPORTS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )
    imported = set(done.stdout.split())
    ours = {name for name in imported if name.partition(".")[0] in {"worker", "jobs", "db"}}

    assert ours == {
        "worker",
        *("worker.cli", "worker.cli._boundary", "worker.cli._options", "worker.cli.check"),
        *("worker.errors", "worker.process", "worker.process.signals"),
    }
    assert not imported & HEAVY
