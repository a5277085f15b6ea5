import asyncio
import uuid
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.errors import diagnose
from db.store import Store
from tests.bank.kit import balance_of, broken_rules, open_account


async def transfer(sessions, **order):
    order = {"id": uuid.uuid4(), "amount": Decimal("1.00"), "currency": "EUR", **order}
    async with sessions() as session, session.begin():
        return await Store(session).ledger.transfer(**order)


async def test_a_transfer_moves_money_and_writes_two_entries(sessions):
    payer, payee = await open_account(sessions, balance="10.00"), await open_account(sessions)

    verdict = await transfer(sessions, from_account=payer, to_account=payee, amount=Decimal("2.50"))

    assert verdict == "posted"
    assert await balance_of(sessions, payer) == 750
    assert await balance_of(sessions, payee) == 250
    async with sessions() as session:
        assert await broken_rules(session) == []


async def test_a_second_post_under_the_same_id_changes_nothing(sessions):
    payer, payee = await open_account(sessions, balance="10.00"), await open_account(sessions)
    order = {"id": uuid.uuid4(), "from_account": payer, "to_account": payee}

    assert await transfer(sessions, **order) == "posted"
    assert await transfer(sessions, **order) == "already_posted"
    assert await balance_of(sessions, payee) == 100


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"amount": Decimal("10.01")}, "insufficient_funds"),
        ({"amount": Decimal("0.001")}, "too_many_decimals"),
        ({"amount": Decimal(0)}, "amount_not_positive"),
        ({"amount": Decimal(-1)}, "amount_not_positive"),
        ({"amount": Decimal("1e17")}, "amount_too_large"),
        ({"currency": "USD"}, "wrong_currency"),
        ({"currency": "QQQ"}, "unknown_currency"),
        ({"to_account": uuid.uuid4()}, "unknown_account"),
        ({"from_account": uuid.uuid4()}, "unknown_account"),
    ],
)
async def test_what_a_caller_may_do_wrong_is_a_verdict(sessions, change, verdict):
    payer, payee = await open_account(sessions, balance="10.00"), await open_account(sessions)

    order = {"from_account": payer, "to_account": payee, **change}

    assert await transfer(sessions, **order) == verdict
    assert await balance_of(sessions, payer) == 1000


async def test_an_account_cannot_pay_itself(sessions):
    account = await open_account(sessions, balance="10.00")

    verdict = await transfer(sessions, from_account=account, to_account=account)

    assert verdict == "same_account"


@pytest.mark.parametrize("status", ["frozen", "closed"])
async def test_an_account_that_is_not_open_takes_no_part(sessions, status):
    payer, payee = await open_account(sessions, balance="10.00"), await open_account(sessions)
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE accounts SET status = :status WHERE id = :id"),
            {"status": status, "id": payee},
        )

    assert await transfer(sessions, from_account=payer, to_account=payee) == "account_not_open"


async def test_a_balance_never_overflows(sessions):
    account = await open_account(sessions, currency="JPY")
    async with sessions() as session:
        world = await Store(session).ledger.world_account("JPY")
    order = {
        "from_account": world,
        "to_account": account,
        "amount": Decimal(2**63 - 1),
        "currency": "JPY",
    }
    # Other tests of this module may have touched the world's account, so come close, then cross.
    first, second = await transfer(sessions, **order), await transfer(sessions, **order)

    assert second == "balance_out_of_range"
    assert first in {"posted", "balance_out_of_range"}


@pytest.mark.parametrize("table", ["transfers", "entries"])
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET amount = 1", "DELETE FROM {}", "TRUNCATE {} CASCADE"]
)
async def test_what_was_posted_cannot_be_changed(sessions, table, change):
    payer, payee = await open_account(sessions, balance="10.00"), await open_account(sessions)
    await transfer(sessions, from_account=payer, to_account=payee)

    async with sessions() as session:
        with pytest.raises(DBAPIError) as caught:
            await session.execute(text(change.format(table)))

    assert diagnose(caught.value).sqlstate == "23514"


NAIVE_LOCK = text("SELECT balance FROM accounts WHERE id = :id FOR UPDATE")


async def naive_transfer(sessions, first, second, both_hold_one):
    """Lock payer, then payee, as one would write it without thinking of the other direction."""
    async with sessions() as session:
        await session.execute(NAIVE_LOCK, {"id": first})
        await both_hold_one.wait()
        await session.execute(NAIVE_LOCK, {"id": second})
        await session.commit()


async def test_crossing_transfers_deadlock_when_locked_in_the_order_of_payment(sessions):
    one, other = await open_account(sessions), await open_account(sessions)
    barrier = asyncio.Barrier(2)

    results = await asyncio.gather(
        naive_transfer(sessions, one, other, barrier),
        naive_transfer(sessions, other, one, barrier),
        return_exceptions=True,
    )

    assert [diagnose(r).sqlstate for r in results if isinstance(r, Exception)] == ["40P01"]


async def test_crossing_transfers_queue_when_locked_in_the_order_of_ids(sessions):
    one = await open_account(sessions, balance="100.00")
    other = await open_account(sessions, balance="100.00")
    pairs = [(one, other), (other, one)] * 50

    verdicts = await asyncio.gather(
        *(transfer(sessions, from_account=a, to_account=b) for a, b in pairs)
    )

    assert set(verdicts) == {"posted"}
    assert await balance_of(sessions, one) == await balance_of(sessions, other) == 10_000


async def test_the_world_s_account_is_locked_last(sessions):
    account = await open_account(sessions)
    async with sessions() as session:
        world = await Store(session).ledger.world_account("EUR")

    assert world > account
