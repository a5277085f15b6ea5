"""The command: only where it may, and with an exit code that says what came of it."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from redis import Redis
from sqlalchemy import make_url

from worker.dev.chaos.sites import MARK

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]
ANYWHERE = "kill-worker,flush-redis,kill-backends,lost-commit"


@pytest.fixture
def chaos(servers, monkeypatch):
    """Runs `worker chaos` on the tests' servers."""

    def run(*arguments, database_url):
        monkeypatch.setenv("DATABASE_URL", database_url)
        monkeypatch.setenv("REDIS_URL", servers[1])
        return subprocess.run(
            [sys.executable, "-m", "worker", "chaos", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    return run


@pytest.fixture
def marked_redis(servers):
    client = Redis.from_url(servers[1])
    client.flushdb()
    client.set(MARK, 1)
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def marked_database_url(databases):
    name = f"teller_{uuid.uuid4().hex[:12]}_chaos"
    databases.execute(f'CREATE DATABASE "{name}"')
    yield databases.url(name)
    databases.drop(name)


def test_a_database_that_is_not_marked_is_refused(chaos, new_database_url, marked_redis):
    done = chaos("--jobs", "10", database_url=new_database_url)

    assert done.returncode == 2
    assert "its name must end with _test or _chaos" in done.stderr
    assert make_url(new_database_url).database in done.stderr


def test_a_redis_that_is_not_marked_is_refused_and_keeps_what_it_has(
    chaos, marked_database_url, marked_redis
):
    marked_redis.delete(MARK)
    marked_redis.set("precious", 1)

    done = chaos("--jobs", "10", database_url=marked_database_url)

    assert done.returncode == 2
    assert f"SET {MARK} 1" in done.stderr
    assert marked_redis.get("precious") == b"1"


def test_a_fault_that_does_not_exist_is_named(chaos, marked_database_url):
    done = chaos("--faults", "earthquake", database_url=marked_database_url)

    assert done.returncode == 2
    assert "earthquake" in done.stderr
    assert "kill-worker" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.timeout(120)
def test_on_given_servers_it_does_what_is_possible_there_and_nothing_is_lost(
    chaos, marked_database_url, marked_redis
):
    done = chaos(
        *("--seed", "5", "--jobs", "100", "--count", "4"),
        *("--faults", f"{ANYWHERE},stop-redis"),
        database_url=marked_database_url,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "left out, impossible here: stop-redis" in done.stdout
    assert "nothing lost, nothing doubled" in done.stdout
    assert "difference 0" in done.stdout.replace("\n", " ")
