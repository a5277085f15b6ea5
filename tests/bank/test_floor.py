"""The floor: all that is there can be paid, and not a cent more."""

import uuid
from decimal import Decimal

import pytest
from sqlalchemy import text

from db.store import Store
from tests.bank.kit import balance_of, open_account


async def pay(sessions, payer, payee, amount):
    async with sessions() as session, session.begin():
        return await Store(session).ledger.transfer(
            id=uuid.uuid4(),
            from_account=payer,
            to_account=payee,
            amount=Decimal(amount),
            currency="EUR",
        )


async def test_the_last_cent_can_be_paid(sessions):
    payer, payee = await open_account(sessions, balance="5.00"), await open_account(sessions)

    assert await pay(sessions, payer, payee, "5.01") == "insufficient_funds"
    assert await pay(sessions, payer, payee, "5.00") == "posted"
    assert await pay(sessions, payer, payee, "0.01") == "insufficient_funds"
    assert await balance_of(sessions, payer) == 0


@pytest.mark.parametrize(
    ("amount", "verdict"), [("7.00", "posted"), ("7.01", "insufficient_funds")]
)
async def test_a_floor_below_zero_is_a_credit_line(sessions, amount, verdict):
    payer, payee = await open_account(sessions, balance="5.00"), await open_account(sessions)
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE accounts SET floor = -200 WHERE id = :id"), {"id": payer}
        )

    assert await pay(sessions, payer, payee, amount) == verdict
