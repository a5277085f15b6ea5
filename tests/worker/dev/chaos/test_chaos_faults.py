"""Each fault does what its name says, and ends."""

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import TimeoutError as RedisTimeoutError
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from db.dev import outcomes_of
from db.engine import create_engine
from db.errors import sqlstate_of
from db.pauses import Pauses
from tests.bank.kit import open_account
from tests.worker.dev.servers.kit import eventually_gone
from tests.worker.loop.kit import eventually
from worker.dev.chaos.faults import KINDS, Fault, inject
from worker.dev.chaos.faults.environment import WORKERS_ROLE, make_role
from worker.dev.chaos.sites import MARK
from worker.dev.servers.processes import is_alive

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


def fault(kind, **changes):
    made = Fault(KINDS[kind], 1, 0.5, 0.1, victim=0.0, force=0.4, gentle=True)
    return replace(made, **changes)


async def test_a_flush_forgets_everything_but_that_it_may(targets):
    redis = targets.connections.redis
    await redis.set("something", 1)

    await inject(targets, fault("flush-redis"))

    assert await redis.keys() == [MARK.encode()]
    assert [strike.kind.name for strike in targets.strikes] == ["flush-redis"]


@pytest.mark.parametrize("gentle", [True, False])
async def test_a_redis_that_was_stopped_comes_back_as_another(targets, gentle):
    before = targets.valkey.pid

    await inject(targets, fault("stop-redis", gentle=gentle))

    assert targets.valkey.running
    assert targets.valkey.pid != before


async def test_a_redis_that_was_frozen_answers_again(targets):
    async with Redis.from_url(targets.valkey.url, socket_timeout=0.2) as redis:
        freezing = asyncio.ensure_future(inject(targets, fault("freeze-redis", hold_s=1.0)))
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

    await inject(targets, fault("restart-postgres", gentle=gentle))

    assert targets.postgres.pid != before
    await own_engine.dispose()
    async with own_engine.connect() as connection:
        assert await connection.scalar(text("SELECT to_regclass(:name)"), {"name": name})


async def test_the_workers_connections_are_ended_and_no_others(targets, stack, own_engine):
    worker = create_engine(stack.database_url, pool_size=1, application_name="teller-worker x:1")
    async with worker.connect() as theirs, own_engine.connect() as ours:
        await theirs.execute(text("SELECT 1"))

        await inject(targets, fault("kill-backends"))

        with pytest.raises(DBAPIError):
            await theirs.execute(text("SELECT 1"))
        assert await ours.scalar(text("SELECT 1")) == 1
    await worker.dispose()


@pytest.mark.parametrize(
    ("kind", "target"),
    [("paused-kind", "kind:transfer_funds"), ("paused-queue", "queue:default")],
)
async def test_a_pause_is_in_the_record_until_it_ends(targets, own_sessions, kind, target):
    async def active():
        async with own_sessions() as session:
            return [pause.target for pause in await Pauses(session).read() if pause.active]

    pausing = asyncio.ensure_future(inject(targets, fault(kind, hold_s=1.0)))
    await eventually(active, deadline_s=5.0)
    assert await active() == [target]

    await pausing
    assert await active() == []


async def test_lost_commits_arm_the_proxy(targets):
    await inject(targets, fault("lost-commit"))

    assert targets.postgres_proxy.armed == 3


async def test_a_frozen_postgres_answers_nothing_until_it_wakes(targets, own_engine):
    async with own_engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        freezing = asyncio.ensure_future(inject(targets, fault("freeze-postgres", hold_s=1.0)))
        await asyncio.sleep(0.2)
        asked_at = time.monotonic()
        await connection.execute(text("SELECT 1"))

    assert time.monotonic() - asked_at > 0.5
    await freezing


async def test_a_slow_network_holds_every_message_back_for_a_while(targets):
    port = await targets.redis_proxy.start()
    async with Redis(port=port) as redis:
        await redis.ping()
        slowing = asyncio.ensure_future(inject(targets, fault("slow-network", force=0.999)))
        await asyncio.sleep(0)
        asked_at = time.monotonic()
        await redis.ping()

        assert time.monotonic() - asked_at > 0.09
        await slowing
        assert targets.redis_proxy.latency_s == 0
    await targets.redis_proxy.stop()


@pytest.fixture
async def workers_engine(stack, own_engine):
    """What a worker has on servers of our own: no superuser."""
    async with own_engine.connect() as connection:
        exists = await connection.scalar(
            text("SELECT 1 FROM pg_roles WHERE rolname = :name"), {"name": WORKERS_ROLE}
        )
    if not exists:
        await make_role(own_engine)
    url = make_url(stack.database_url).set(username=WORKERS_ROLE)
    made = create_engine(
        url.render_as_string(hide_password=False), pool_size=1, application_name="teller-tests"
    )
    yield made
    await made.dispose()


POSTS = text("SELECT count(*) FROM pg_proc WHERE proname = 'post_transfer'")


async def test_a_right_is_missing_for_a_while(targets, workers_engine):
    revoking = asyncio.ensure_future(inject(targets, fault("revoked-grant", hold_s=1.0)))

    async def may_not_read():
        try:
            async with workers_engine.connect() as connection:
                await connection.execute(text("SELECT count(*) FROM accounts"))
        except DBAPIError as error:
            return sqlstate_of(error) == "42501"
        return False

    await eventually(may_not_read)
    await revoking
    assert not await may_not_read()


async def test_a_function_is_missing_for_a_while(targets, own_engine):
    losing = asyncio.ensure_future(inject(targets, fault("missing-function", hold_s=1.0)))

    async def is_missing():
        async with own_engine.connect() as connection:
            return not await connection.scalar(POSTS)

    await eventually(is_missing)
    await losing
    assert not await is_missing()


async def test_a_row_is_locked_for_a_while(targets, own_engine, own_sessions):
    await open_account(own_sessions)
    locking = asyncio.ensure_future(inject(targets, fault("locked-row", hold_s=1.0)))

    async def is_locked():
        async with own_engine.connect() as connection:
            free = await connection.execute(text("SELECT id FROM accounts FOR UPDATE SKIP LOCKED"))
            count = await connection.scalar(text("SELECT count(*) FROM accounts"))
            return len(free.all()) < count

    await eventually(is_locked)
    await locking
    assert not await is_locked()


@pytest.mark.parametrize("victim", [0.0, 0.9], ids=["by Redis", "by a session"])
@pytest.mark.timeout(120)
async def test_poison_ends_by_the_worker_that_knows_it_and_nothing_else_does(
    running_worker, targets, own_sessions, victim
):
    await inject(targets, fault("poison:nul-in-error", victim=victim, number=int(victim * 10)))
    (job_id,) = targets.poisoned

    async def ended():
        async with own_sessions() as session:
            found = await outcomes_of(session, [job_id])
        return bool(found) and found[0].state == "dead" and found[0].error == "NulError"

    await eventually(ended)


GARBAGE = [name for name in KINDS if name.startswith("garbage:")]


@pytest.mark.parametrize("name", GARBAGE)
@pytest.mark.timeout(120)
async def test_garbage_is_out_of_redis_and_in_the_record(
    running_worker, targets, own_sessions, name
):
    await inject(targets, fault(name, number=GARBAGE.index(name)))

    async def all_recorded():
        async with own_sessions() as session:
            found = await outcomes_of(session, targets.garbage)
        return {one.state for one in found} <= {"dead"} and len(found) == len(targets.garbage)

    async def out_of_redis():
        redis = targets.connections.redis
        return await redis.type("arq:queue") in {b"zset", b"none"} and not [
            key async for key in redis.scan_iter("arq:job:*garbage*")
        ]

    await eventually(all_recorded)
    await eventually(out_of_redis)


async def test_a_worker_that_is_killed_is_replaced(fleet):
    before = {member.process.pid for member in fleet.members}

    await fleet.kill(0.0)

    async def replaced():
        now = {member.process.pid for member in fleet.members if member.process.running}
        return len(now) == len(before) and now != before

    await eventually(replaced)
    assert (fleet.started, fleet.deaths.total()) == (3, 0)


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
    fleet = Fleet(Path(sys.argv[1]), size=2)
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
