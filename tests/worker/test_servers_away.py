"""Whole worker processes where one server is away, or answers and does not serve."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psycopg
import pytest

from tests.letters import SAMPLES

PROJECT = Path(__file__).parents[2]
WAIT_S = 60

# A worker process that knows letters; one of 13 pages ends the process, as the memory killer does.
# Without Redis, the jobs of a process that has died are due again after half a second.
WITH_DEADLY_LETTERS = f"""
import os, runpy
from datetime import timedelta

import jobs
jobs.__path__.append({SAMPLES!r})
from jobs import send_letter
from worker.maintenance import fallback

async def post(ctx, letter):
    if letter.pages == 13:
        os._exit(7)

send_letter.post = post
fallback.LEASE = timedelta(seconds=0.5)
fallback.RENEW_INTERVAL_S = 0.1
runpy.run_module("worker.process", run_name="__main__")
"""
EXIT_CODE = 7
CRASHES_MAX = 3

ENQUEUE = "SELECT enqueue_job('send_letter', $1)"
DATABASE = "SELECT quote_ident(current_database())"


@pytest.fixture
def environment(new_database_url, redis_url):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **os.environ,
        "DATABASE_URL": new_database_url,
        "REDIS_URL": redis_url,
        "TELLER_HEALTH_PORT": str(port),
        "PYTHONPATH": str(PROJECT),
    }


@pytest.fixture
async def operator(new_database_url):
    """A connection that may write, whatever the database's default is."""
    connection = await asyncpg.connect(
        new_database_url, server_settings={"default_transaction_read_only": "off"}
    )
    yield connection
    await connection.close()


@contextmanager
def worker_process(environment):
    command = [sys.executable, "-c", WITH_DEADLY_LETTERS]
    with subprocess.Popen(
        command, env=environment, cwd=PROJECT, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def readiness(environment):
    url = f"http://127.0.0.1:{environment['TELLER_HEALTH_PORT']}/readyz"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


async def until(look):
    """Wait until a look is true; it may be a coroutine function."""
    deadline = time.monotonic() + WAIT_S
    while not await look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def until_ready(environment, status=200):
    async def is_so():
        return await asyncio.to_thread(readiness, environment) == status

    await until(is_so)


async def accept(operator, pages):
    return await operator.fetchval(
        ENQUEUE, json.dumps({"address": "12 High Street", "pages": pages})
    )


async def state_of(operator, job_id):
    return await operator.fetchval("SELECT state FROM jobs WHERE id = $1", job_id)


async def test_a_worker_is_ready_soon_after_its_database_can_write_again(
    environment, operator, new_database_url, redis
):
    """Connections made meanwhile cannot write for as long as they live, so none of them is kept."""
    database = await operator.fetchval(DATABASE)
    with worker_process(environment):
        await until_ready(environment)
        await operator.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
        with psycopg.connect(new_database_url) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
                "current_database() AND application_name LIKE 'teller%'"
            )
        await until_ready(environment, 503)
        job_id = await accept(operator, pages=1)
        await operator.execute(f"ALTER DATABASE {database} RESET default_transaction_read_only")

        await until_ready(environment)

        async def completed():
            return await state_of(operator, job_id) == "completed"

        await until(completed)


async def test_without_redis_too_a_job_under_which_three_processes_died_is_dead(
    environment, operator
):
    environment |= {"REDIS_URL": "redis://127.0.0.1:1/0"}
    deadly, innocent = await accept(operator, pages=13), await accept(operator, pages=1)
    for _ in range(CRASHES_MAX):
        with worker_process(environment) as process:
            assert await asyncio.to_thread(process.wait, WAIT_S) == EXIT_CODE

    with worker_process(environment):

        async def both_ended():
            return "queued" not in {
                await state_of(operator, deadly),
                await state_of(operator, innocent),
            }

        await until(both_ended)

    assert await state_of(operator, innocent) == "completed"
    assert await state_of(operator, deadly) == "dead"
    errors = await operator.fetchval("SELECT errors FROM jobs WHERE id = $1", deadly)
    assert json.loads(errors)[-1]["error"] == "WorkerDied"
