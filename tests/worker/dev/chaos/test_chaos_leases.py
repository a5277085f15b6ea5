"""Workers that die or freeze in the middle of jobs: others take over, and nothing happens twice."""

from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from db.store import Store
from db.transaction import MOVE_LIMITS
from jobs import Client, Request
from tests.bank.kit import balance_of, broken_rules, open_account
from tests.worker.loop.kit import eventually
from worker.dev.servers import processes
from worker.dev.workload import Wallet, transfer

pytestmark = pytest.mark.slow

JOBS = 12
IN_PROGRESS = "arq:in-progress:"
# A frozen worker's transaction ends 10 s after it got the lock that it never knew of.
LONGEST_S = 40.0


@asynccontextmanager
async def stuck_jobs(stack, sessions):
    """Enqueue transfers from an account whose row is held, so that workers hang in them."""
    async with Redis.from_url(stack.redis_url) as redis:
        payer = await open_account(sessions, balance="100.00")
        payees = [await open_account(sessions) for _ in range(JOBS)]
        client = Client(redis, sessions=sessions)
        async with sessions() as holder:
            # However long the workers take to start, the row stays locked.
            await holder.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            await holder.execute(text(MOVE_LIMITS), {"limit_ms": "0"})
            await holder.execute(
                text("SELECT FROM accounts WHERE id = :id FOR UPDATE"), {"id": payer}
            )
            handles = await client.enqueue_many(
                [Request(transfer(payer, Wallet(payee, "EUR"), 100)) for payee in payees]
            )
            await client.aclose()
            yield redis, handles, payees, holder


async def a_worker_with_jobs(redis, fleet):
    """Return a worker that holds leases, and the ids of the jobs."""

    async def held():
        by_pid = {}
        async for key in redis.scan_iter(f"{IN_PROGRESS}*"):
            holder = await redis.get(key)
            if holder:
                pid = int(holder.decode().split(":")[1])
                by_pid.setdefault(pid, set()).add(key.decode().removeprefix(IN_PROGRESS))
        return next(
            (
                (member, by_pid[member.process.pid])
                for member in fleet.members
                if member.process.pid in by_pid
            ),
            None,
        )

    return await eventually(held)


async def all_final(sessions, ids):
    async def none_is_queued():
        async with sessions() as session:
            queued = await session.scalar(
                text(
                    "SELECT count(*) FROM jobs "
                    "WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued'"
                ),
                {"ids": list(ids)},
            )
            return queued == 0

    await eventually(none_is_queued, deadline_s=LONGEST_S)


async def nothing_was_done_twice(sessions, payees):
    assert [await balance_of(sessions, payee) for payee in payees] == [100] * JOBS
    async with sessions() as session:
        assert await broken_rules(session) == []


@pytest.mark.timeout(120)
async def test_the_jobs_of_a_killed_worker_run_elsewhere(stack, own_sessions, fleet):
    async with stuck_jobs(stack, own_sessions) as (redis, handles, payees, holder):
        victim, held = await a_worker_with_jobs(redis, fleet)
        victim.killed = True
        processes.kill(victim.process.pid)
        await holder.rollback()

        await all_final(own_sessions, held)
        await all_final(own_sessions, [str(handle.id) for handle in handles])
    await nothing_was_done_twice(own_sessions, payees)


@pytest.mark.timeout(120)
async def test_a_frozen_worker_that_wakes_up_applies_nothing_twice(stack, own_sessions, fleet):
    async with stuck_jobs(stack, own_sessions) as (redis, handles, payees, holder):
        victim, held = await a_worker_with_jobs(redis, fleet)
        victim.frozen = True
        processes.freeze(victim.process.pid)
        await holder.rollback()

        await all_final(own_sessions, held)
        processes.thaw(victim.process.pid)
        await all_final(own_sessions, [str(handle.id) for handle in handles])

        async def nothing_is_held():
            return not [key async for key in redis.scan_iter(f"{IN_PROGRESS}*")]

        await eventually(nothing_is_held)
    await nothing_was_done_twice(own_sessions, payees)
    async with own_sessions() as session:
        report = await Store(session).audit.run_in_snapshot()
    found = {one.name for one in report.findings if one.differences}
    # The deposits of these tests have no jobs; everything else must hold.
    assert found <= {"transfer_has_job"}
