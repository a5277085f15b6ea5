"""A dividend: a transfer to every account, enqueued in slices, through a whole worker."""

import asyncio

import pytest
from sqlalchemy import text

from jobs import Client, pay_dividend
from tests.bank.kit import balance_of, broken_rules, open_account
from tests.worker.running import running_worker

DEADLINE_S = 60
HOLDERS = 7


@pytest.fixture
def small_slices(monkeypatch):
    monkeypatch.setattr(pay_dividend, "ACCOUNTS_PER_SLICE", 3)


async def until_over(sessions):
    """Wait until no job is queued."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with sessions() as session:
                if not await session.scalar(
                    text("SELECT count(*) FROM jobs WHERE state = 'queued'")
                ):
                    return
            await asyncio.sleep(0.02)


async def test_every_account_is_paid_once_however_many_slices_it_takes(
    sessions, database_url, redis, redis_url, small_slices
):
    payer = await open_account(sessions, balance="100")
    holders = [await open_account(sessions) for _ in range(HOLDERS)]
    dividend = pay_dividend.PayDividend.from_wire(
        {"from_account": str(payer), "amount": "1.50", "currency": "EUR"}
    )

    async with running_worker(database_url, redis_url):
        handle = await Client(redis=redis).enqueue(dividend)
        paid = await handle.result(timeout=DEADLINE_S)
        await until_over(sessions)

    assert paid == pay_dividend.DividendPaid(transfers=HOLDERS)
    assert [await balance_of(sessions, account) for account in holders] == [150] * HOLDERS
    assert await balance_of(sessions, payer) == 10_000 - HOLDERS * 150
    async with sessions() as session:
        assert await broken_rules(session) == []
        slices = await session.scalar(text("SELECT slices FROM jobs WHERE kind = 'pay_dividend'"))
    assert slices == (HOLDERS + 1) // 3
