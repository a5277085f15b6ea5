"""Amounts as they are written become minor units by what the accounts are counted in."""

import uuid
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.bank.money import iso_exponent
from db.errors import diagnose
from db.store import Store
from tests.bank.kit import balance_of, open_account

MINOR_UNITS_MAX = 2**63 - 1


@pytest.mark.parametrize(
    ("currency", "exponent"),
    [
        ("EUR", 2),
        ("JPY", 0),
        ("KWD", 3),
        ("CLF", 4),
        ("MRU", 2),
        ("XCG", 2),
        ("XAU", None),
        ("QQQ", None),
    ],
)
def test_a_currency_has_the_digits_of_iso_4217(currency, exponent):
    assert iso_exponent(currency) == exponent


async def deposit(sessions, account, amount, currency):
    """Pay from the world's account, and take it back if it was posted: 64 bits are soon full."""
    async with sessions() as session:
        ledger = Store(session).ledger
        verdict = await ledger.transfer(
            id=uuid.uuid4(),
            from_account=await ledger.world_account(currency),
            to_account=account,
            amount=Decimal(amount),
            currency=currency,
        )
        balance = await ledger.balances([account])
        await session.rollback()
    return verdict, balance[account]


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.34", "EUR", 1234),
        ("12.340000", "EUR", 1234),
        ("12", "EUR", 1200),
        ("1E+3", "EUR", 100_000),
        ("0.1", "EUR", 10),
        ("1.1", "EUR", 110),
        ("4.35", "EUR", 435),
        ("1234", "JPY", 1234),
        ("1.234", "KWD", 1234),
        ("0.0001", "CLF", 1),
        ("90071992547409.93", "EUR", 2**53 + 1),
        ("92233720368547758.07", "EUR", MINOR_UNITS_MAX),
        ("9223372036854775807", "JPY", MINOR_UNITS_MAX),
    ],
)
async def test_an_amount_becomes_minor_units_by_the_account_s_exponent(
    sessions, amount, currency, minor
):
    account = await open_account(sessions, currency)

    assert await deposit(sessions, account, amount, currency) == ("posted", minor)


@pytest.mark.parametrize(
    ("amount", "currency", "verdict"),
    [
        ("0.001", "EUR", "too_many_decimals"),
        ("12.345", "EUR", "too_many_decimals"),
        ("0.1", "JPY", "too_many_decimals"),
        ("0.00001", "CLF", "too_many_decimals"),
        ("1E-30", "EUR", "too_many_decimals"),
        ("92233720368547758.08", "EUR", "amount_too_large"),
        ("1E+30", "EUR", "amount_too_large"),
        ("Infinity", "EUR", "amount_too_large"),
        ("NaN", "EUR", "amount_too_large"),
        ("-0.01", "EUR", "amount_not_positive"),
    ],
)
async def test_what_cannot_be_said_in_minor_units_is_a_verdict(sessions, amount, currency, verdict):
    account = await open_account(sessions, currency)

    assert await deposit(sessions, account, amount, currency) == (verdict, 0)


async def test_any_amount_of_a_currency_arrives_to_the_last_digit(sessions):
    accounts = {name: await open_account(sessions, name) for name in ("EUR", "JPY", "KWD", "CLF")}
    digits = {"EUR": 2, "JPY": 0, "KWD": 3, "CLF": 4}
    drawn = []

    @settings(max_examples=60, database=None, derandomize=True)
    @given(st.integers(1, MINOR_UNITS_MAX), st.sampled_from(sorted(accounts)))
    def draw(minor, currency):
        drawn.append((minor, currency))

    draw()
    for minor, currency in drawn:
        amount = Decimal(minor).scaleb(-digits[currency])
        said = await deposit(sessions, accounts[currency], amount, currency)
        assert said == ("posted", minor), (amount, currency)


async def test_an_account_keeps_what_it_is_counted_in(sessions):
    account = await open_account(sessions, "KWD", balance="1.234")

    async with sessions() as session:
        with pytest.raises(DBAPIError, match="keeps its exponent") as caught:
            await session.execute(
                text("UPDATE accounts SET exponent = 2 WHERE id = :id"), {"id": account}
            )
    assert diagnose(caught.value).sqlstate == "23514"
    assert await balance_of(sessions, account) == 1234


@pytest.mark.parametrize("change", ["currency = 'kwd'", "status = 'lost'", "exponent = 5"])
async def test_no_code_path_makes_an_account_into_what_is_none(sessions, change):
    account = await open_account(sessions, "KWD")

    async with sessions() as session:
        with pytest.raises(DBAPIError, match="not an account") as caught:
            await session.execute(
                text(f"UPDATE accounts SET {change} WHERE id = :id"), {"id": account}
            )
    assert diagnose(caught.value).sqlstate == "23514"


async def test_accounts_of_one_currency_are_counted_in_the_unit_of_the_first(sessions):
    await open_account(sessions, "KWD")
    async with sessions() as session:
        exponent = await session.scalar(
            text("""INSERT INTO accounts (code, currency, exponent) VALUES ('by:hand', 'KWD', 2)
                    RETURNING exponent""")
        )

    assert exponent == 3
