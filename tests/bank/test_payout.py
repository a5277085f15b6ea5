"""A payout: a batch of transfers and its report, whoever dies while it runs."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from sqlalchemy import text

from db.audit import RECORD_RULES, Audit
from jobs import Client
from jobs.pay_out import Payment, PayOut, PayoutBegun
from jobs.report_payout import PayoutReported
from tests.bank.kit import broken_rules, open_account
from tests.worker.running import running_worker

PROJECT = Path(__file__).parents[2]
ENOUGH_S = 60
PAYMENTS = 150


async def balance_of(sessions, account):
    async with sessions() as session:
        return await session.scalar(
            text("SELECT balance FROM accounts WHERE id = :id"), {"id": account}
        )


async def broken(sessions):
    """Return the rules that books and jobs break; an account's first money came without a job."""
    async with sessions() as session:
        jobs = await Audit(session, RECORD_RULES).run_in_snapshot()
        broken = [finding.name for finding in jobs.findings if finding.differences]
        return broken + await broken_rules(session)


def payout(payer, payee, payments, amount="0.01"):
    return PayOut(
        from_account=payer,
        currency="EUR",
        payments=tuple(Payment(to_account=payee, amount=Decimal(amount)) for _ in range(payments)),
    )


async def test_a_payout_pays_what_the_account_covers_and_reports_the_rest(
    sessions, redis, database_url, redis_url
):
    payer, payee = await open_account(sessions, "EUR", "5.00"), await open_account(sessions, "EUR")
    client = Client(redis, sessions=sessions)
    async with running_worker(database_url, redis_url):
        job = await client.enqueue(payout(payer, payee, 8, "1.00"))
        begun = await job.result(ENOUGH_S)
        assert isinstance(begun, PayoutBegun)
        report = await client.batch_handle(begun.batch).result(ENOUGH_S)

    assert report == PayoutReported(payout=job.id, paid=5, rejected=3, failed=0)
    assert await balance_of(sessions, payee) == 500
    assert await broken(sessions) == []


@asynccontextmanager
async def worker_process(database_url, redis_url):
    """Run a worker in a process of its own, which is killed at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "worker", "run", "--concurrency", "8"),
        cwd=PROJECT,
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TELLER_HEALTH_PORT": "0",
            "TELLER_LOG_LEVEL": "ERROR",
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.timeout(ENOUGH_S * 5)
async def test_workers_that_are_killed_in_the_middle_lose_and_double_nothing(
    sessions, redis, database_url, redis_url
):
    payer = await open_account(sessions, "EUR", "100.00")
    payee = await open_account(sessions, "EUR")
    client = Client(redis, sessions=sessions)
    order = payout(payer, payee, PAYMENTS)
    job = await client.enqueue(order)
    async with (
        asyncio.timeout(ENOUGH_S * 4),
        worker_process(database_url, redis_url) as first,
        worker_process(database_url, redis_url) as second,
        worker_process(database_url, redis_url),
    ):
        begun = await job.result(ENOUGH_S * 2)
        assert isinstance(begun, PayoutBegun)
        batch = client.batch_handle(begun.batch)
        for part, victim in ((1, first), (2, second)):
            await until_final(batch, PAYMENTS * part // 3)
            victim.kill()
            await victim.wait()
        report = await batch.result(ENOUGH_S * 2)

    assert report == PayoutReported(payout=job.id, paid=PAYMENTS, rejected=0, failed=0)
    assert await balance_of(sessions, payee) == PAYMENTS
    assert await broken(sessions) == []


async def until_final(batch, members):
    """Wait until so many of a batch are over."""
    while (await batch.status()).final < members:  # noqa: ASYNC110 - another process ends them
        await asyncio.sleep(0.02)
