"""A Redis that forgets everything loses nothing."""

import asyncio

import pytest
from sqlalchemy import text

from db.dev import queued
from db.engine import create_engine, create_sessions
from jobs import Client, Request
from tests.bank.kit import balance_of, broken_rules, open_account
from tests.worker.loop.kit import eventually
from worker.app import create_worker
from worker.dev.workload import Wallet, transfer
from worker.settings import Settings

pytestmark = pytest.mark.slow

JOBS = 1_000
BATCH = 500
LONGEST_S = 100.0


@pytest.fixture
async def quiet_worker(new_database_url, redis_url):
    settings = Settings(
        DATABASE_URL=new_database_url, REDIS_URL=redis_url, log_level="ERROR", concurrency=16
    )
    made = create_worker(settings, handle_signals=False)
    yield made
    await made.close()


@pytest.mark.timeout(180)
async def test_a_thousand_jobs_survive_flushall(new_database_url, redis, quiet_worker):
    engine = create_engine(new_database_url, pool_size=4, application_name="teller-tests")
    sessions = create_sessions(engine)
    payers = [await open_account(sessions, balance="1000.00") for _ in range(16)]
    payees = [await open_account(sessions) for _ in range(16)]
    orders = [
        Request(transfer(payers[n % 16], Wallet(payees[n % 16], "EUR"), 1)) for n in range(JOBS)
    ]
    client = Client(redis, sessions=sessions)
    for start in range(0, JOBS, BATCH):
        await client.enqueue_many(orders[start : start + BATCH])
    await client.aclose()
    assert await redis.zcard("arq:queue") == JOBS

    await redis.flushdb()
    running = asyncio.create_task(quiet_worker.async_run())

    async def all_final():
        async with sessions() as session:
            return await queued(session) == 0

    await eventually(all_final, deadline_s=LONGEST_S)
    await quiet_worker.close()
    await asyncio.wait({running})

    assert sum([await balance_of(sessions, payee) for payee in payees]) == JOBS
    async with sessions() as session:
        assert await broken_rules(session) == []
        assert await session.scalar(text("SELECT count(*) FROM jobs")) == JOBS
    await engine.dispose()
