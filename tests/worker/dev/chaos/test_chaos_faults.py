"""Each fault does what its name says, and ends."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine
from tests.worker.dev.servers.kit import eventually_gone
from tests.worker.loop.kit import eventually
from worker.dev.chaos.faults import INJECTIONS, inject
from worker.dev.chaos.plan import Fault, FaultKind
from worker.dev.chaos.sites import MARK
from worker.dev.servers.processes import is_alive

ROOT = Path(__file__).parents[4]


def fault(kind, **changes):
    return replace(Fault(kind, 0.5, 0.1, 0.0, gentle=True, replies=3), **changes)


def test_every_kind_has_its_fault():
    assert set(INJECTIONS) == set(FaultKind)


async def test_a_flush_forgets_everything_but_that_it_may(targets):
    async with Redis.from_url(targets.redis_url) as redis:
        await redis.set("something", 1)

        await inject(targets, fault(FaultKind.FLUSH_REDIS))

        assert await redis.keys() == [MARK.encode()]
    assert targets.injected == {FaultKind.FLUSH_REDIS: 1}


@pytest.mark.parametrize("gentle", [True, False])
async def test_a_redis_that_was_stopped_comes_back_as_another(targets, gentle):
    before = targets.valkey.pid

    await inject(targets, fault(FaultKind.STOP_REDIS, gentle=gentle))

    assert targets.valkey.running
    assert targets.valkey.pid != before


async def test_a_redis_that_was_frozen_answers_again(targets):
    async with Redis.from_url(targets.redis_url, socket_timeout=0.2) as redis:
        freezing = asyncio.ensure_future(inject(targets, fault(FaultKind.FREEZE_REDIS, hold_s=1.0)))
        await asyncio.sleep(0.2)
        with pytest.raises(RedisTimeoutError):
            await redis.ping()

        await freezing
        assert await redis.ping()


@pytest.mark.parametrize("gentle", [True, False])
async def test_a_postgres_that_was_restarted_has_what_was_committed(targets, own_engine, gentle):
    name = f"kept_{uuid.uuid4().hex}"
    async with own_engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE {name} ()"))
    before = targets.postgres.pid

    await inject(targets, fault(FaultKind.RESTART_POSTGRES, gentle=gentle))

    assert targets.postgres.pid != before
    await own_engine.dispose()
    async with own_engine.connect() as connection:
        assert await connection.scalar(text("SELECT to_regclass(:name)"), {"name": name})


async def test_the_workers_connections_are_ended_and_no_others(targets, stack, own_engine):
    worker = create_engine(stack.database_url, pool_size=1, application_name="teller-worker x:1")
    async with worker.connect() as theirs, own_engine.connect() as ours:
        await theirs.execute(text("SELECT 1"))

        await inject(targets, fault(FaultKind.KILL_BACKENDS))

        with pytest.raises(DBAPIError):
            await theirs.execute(text("SELECT 1"))
        assert await ours.scalar(text("SELECT 1")) == 1
    await worker.dispose()


async def test_lost_commits_arm_the_proxy(targets):
    await inject(targets, fault(FaultKind.LOST_COMMIT))

    assert targets.proxy.armed == 3


async def test_a_worker_that_is_killed_is_replaced(fleet):
    before = {member.process.pid for member in fleet.members}

    await fleet.kill(0.0)

    async def replaced():
        now = {member.process.pid for member in fleet.members if member.process.running}
        return len(now) == len(before) and now != before

    await eventually(replaced)
    assert (fleet.started, fleet.ended_by_themselves) == (3, 0)


async def test_workers_drain_and_say_so_by_their_exit_codes(fleet):
    await fleet.ready()
    await fleet.stop()

    assert fleet.exit_codes == [0, 0]


# Starts two workers, freezes one, and says who they are.
OWNER = """
import asyncio, sys
from pathlib import Path
from worker.dev.chaos.fleet import Fleet, environment
from worker.dev.servers import processes

async def main():
    fleet = Fleet(Path(sys.argv[1]), size=2, concurrency=1)
    with environment():
        await fleet.start()
    one, other = (member.process.pid for member in fleet.members)
    processes.freeze(one)
    print(one, other, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_no_worker_survives_kill_9_of_chaos_not_even_a_frozen_one(stack, tmp_path):
    urls = {"DATABASE_URL": stack.database_url, "REDIS_URL": stack.redis_url}
    chaos = subprocess.Popen(
        [sys.executable, "-c", OWNER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, **urls, "PYTHONPATH": str(ROOT)},
    )
    with chaos:
        assert chaos.stdout
        workers = [int(pid) for pid in chaos.stdout.readline().split()]
        assert all(map(is_alive, workers))

        chaos.send_signal(signal.SIGKILL)
        chaos.wait()

    for pid in workers:
        eventually_gone(pid)
