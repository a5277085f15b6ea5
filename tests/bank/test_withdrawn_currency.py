"""Money outlives its currency: what ISO 4217 has withdrawn can be reported, and can leave.

The lev, the kuna and the peseta of Andorra are out of the library's table. Here the accounts are
opened as they were when it still had them.
"""

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from db.bank import ledger
from db.bank.money import iso_exponent
from db.store import Store
from tests.bank.kit import balance_of, broken_rules
from tests.bank.reports.kit import Books, Desk
from tests.examples import pairs

WITHDRAWN = {"BGN": 2, "ADP": 0, "HRK": 2}
REPORTS = ("account_statement", "trial_balance", "transfer_volume")
FORMATS = ("csv", "json", "xlsx", "pdf")


@pytest.fixture
async def books(sessions, monkeypatch):
    """Ada and Ben hold levs, pesetas and euros; only euros are still a currency."""
    assert not any(map(iso_exponent, WITHDRAWN)), "the library knows one of them again"
    names = [f"{name}-{uuid.uuid4().hex[:8]}" for name in ("ada", "ben")]
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "iso_exponent", {**WITHDRAWN, "EUR": 2}.get)
        made = await Books(sessions).open(names, ("ADP", "BGN", "EUR"))
    made.accounts = {
        currency: dict(zip(("ada", "ben"), accounts.values(), strict=True))
        for currency, accounts in made.accounts.items()
    }
    for currency in made.accounts:
        world = await made.world(currency)
        await made.post(datetime.now(UTC), world, made.accounts[currency]["ada"], 123_456, currency)
    return made


@pytest.fixture
def desk(sessions, tmp_path):
    return Desk(sessions, tmp_path / "reports")


async def pay(books, payer, payee, amount, currency):
    async with books.sessions() as session, session.begin():
        return await Store(session).ledger.transfer(
            id=uuid.uuid4(),
            from_account=payer,
            to_account=payee,
            amount=Decimal(amount),
            currency=currency,
        )


async def test_money_of_a_withdrawn_currency_can_move_and_leave(books):
    ada, ben = books.accounts["BGN"].values()

    assert await pay(books, ada, ben, "234.56", "BGN") == "posted"
    assert await pay(books, ada, await books.world("BGN"), "1000.00", "BGN") == "posted"
    assert await balance_of(books.sessions, ada) == 0
    assert await balance_of(books.sessions, ben) == 23_456
    async with books.sessions() as session:
        assert await broken_rules(session) == []


@pytest.mark.parametrize(
    ("amount", "currency", "verdict"),
    [
        ("0.001", "BGN", "too_many_decimals"),
        ("0.1", "ADP", "too_many_decimals"),
        ("1", "ADP", "posted"),
        ("123457", "ADP", "insufficient_funds"),
    ],
)
async def test_a_withdrawn_currency_keeps_its_digits(books, amount, currency, verdict):
    ada, ben = books.accounts[currency].values()

    assert await pay(books, ada, ben, amount, currency) == verdict


@pytest.mark.parametrize(
    ("currency", "verdict"),
    [
        ("BGN", "wrong_currency"),
        ("USD", "wrong_currency"),
        ("QQQ", "unknown_currency"),
        ("HRK", "unknown_currency"),
    ],
    ids=["withdrawn, with accounts here", "of ISO 4217", "of nobody", "withdrawn, none here"],
)
async def test_a_transfer_in_another_currency_says_whether_there_is_one(books, currency, verdict):
    ada, ben = books.accounts["EUR"].values()

    assert await pay(books, ada, ben, "1", currency) == verdict


async def test_a_withdrawn_currency_gets_no_new_account(books):
    async with books.sessions() as session, session.begin():
        store = Store(session)
        name = uuid.uuid4().hex
        user = await store.users.create(username=name, email=f"{name}@example.com")
        assert isinstance(user, uuid.UUID)

        assert await store.ledger.open_accounts(user, ["EUR", "BGN"]) == "unknown_currency"


async def test_a_new_account_is_counted_like_the_others_whatever_iso_4217_says_by_now(
    books, monkeypatch
):
    monkeypatch.setattr(ledger, "iso_exponent", {"EUR": 3}.get)
    async with books.sessions() as session, session.begin():
        store = Store(session)
        name = uuid.uuid4().hex
        user = await store.users.create(username=name, email=f"{name}@example.com")
        assert isinstance(user, uuid.UUID)
        opened = await store.ledger.open_accounts(user, ["EUR"])
        assert isinstance(opened, dict)
    account = opened["EUR"]

    assert await pay(books, await books.world("EUR"), account, "1.234", "EUR") == (
        "too_many_decimals"
    )
    assert await pay(books, await books.world("EUR"), account, "1.23", "EUR") == "posted"
    assert await balance_of(books.sessions, account) == 123


@pytest.mark.examples
@pytest.mark.parametrize(("report", "format_"), pairs(REPORTS, FORMATS))
async def test_every_report_tells_of_a_withdrawn_currency(books, desk, report, format_):
    account = {"account": str(books.accounts["BGN"]["ada"])} if report == REPORTS[0] else {}

    built = await desk.built(report=report, format=format_, **account)

    content = built.read_bytes()
    if format_ in ("csv", "json"):
        assert b"BGN" in content
        assert b"1234.56" in content
    if format_ in ("csv", "json") and not account:
        assert b"ADP" in content
        assert b"123456" in content
        assert b"EUR" in content


async def test_a_refusal_counts_under_a_currency_that_this_ledger_has_or_had(books):
    async with books.sessions() as session, session.begin():
        now = await Store(session).reports.time()
        for currency in ("BGN", "USD", "QQQ", "HRK"):
            await session.execute(
                text("""
                    INSERT INTO jobs (kind, payload, state, result, finished_at)
                    VALUES ('transfer_funds', jsonb_build_object('currency', CAST(:code AS text)),
                            'rejected', '{"code": "unknown_account"}', clock_timestamp())
                """),
                {"code": currency},
            )
    day = timedelta(days=1)
    async with books.sessions() as session:
        reports = Store(session).reports
        await reports.take_snapshot(end=now + day, timezone="UTC", limit=timedelta(minutes=1))
        volume = await reports.transfer_volume([now - day, now, now + day], currency=None)

    digits = {one.currency: one.digits for one in volume.currencies}
    assert (digits["BGN"], digits["USD"]) == (2, 2)
    assert not {"QQQ", "HRK"} & digits.keys()
