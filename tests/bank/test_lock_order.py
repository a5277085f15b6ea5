"""In which order a transfer takes its locks, and which kind: what makes crossing pairs queue."""

import asyncio
import uuid

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine, create_sessions
from db.errors import diagnose
from tests.bank.kit import broken_rules, open_account

POST = text("SELECT verdict FROM post_transfer(:id, :payer, :payee, :amount, 'EUR')")
HOLD = text("SELECT FROM accounts WHERE id = :id FOR NO KEY UPDATE")
IS_FREE = text("SELECT FROM accounts WHERE id = :id FOR NO KEY UPDATE NOWAIT")
AS_A_FOREIGN_KEY_DOES = text("SELECT FROM accounts WHERE id = :id FOR KEY SHARE")

# Then rows are met in the order in which they lie in the table, whatever their ids.
READ_IN_ORDER_OF_THE_TABLE = [
    "SET LOCAL enable_indexscan = off",
    "SET LOCAL enable_bitmapscan = off",
    "SET LOCAL enable_indexonlyscan = off",
]


async def two_accounts(sessions):
    """Open two accounts; the one with the greater id lies first in the table."""
    low, high = uuid.UUID(int=1), uuid.UUID(int=2)
    async with sessions() as session, session.begin():
        for account in (high, low):
            await session.execute(
                text(
                    "INSERT INTO accounts (id, code, currency, floor) "
                    "VALUES (:id, 'lock:' || CAST(:id AS uuid), 'EUR', NULL)"
                ),
                {"id": account},
            )
    return low, high


@pytest.fixture
async def own_sessions(new_database_url):
    engine = create_engine(new_database_url, pool_size=20, application_name="teller-tests")
    yield create_sessions(engine)
    await engine.dispose()


@pytest.mark.parametrize("pays", ["low", "high"])
async def test_accounts_are_locked_in_order_of_ids_whatever_the_plan(own_sessions, pays):
    low, high = await two_accounts(own_sessions)
    payer, payee = (low, high) if pays == "low" else (high, low)
    async with own_sessions() as holder, own_sessions() as poster, own_sessions() as observer:
        await holder.execute(HOLD, {"id": high})
        for setting in READ_IN_ORDER_OF_THE_TABLE:
            await poster.execute(text(setting))
        order = {"id": uuid.uuid4(), "payer": payer, "payee": payee, "amount": 1}
        posting = asyncio.ensure_future(poster.execute(POST, order))
        await until_it_waits(observer, poster_is_waiting=True)

        with pytest.raises(DBAPIError) as caught:
            await observer.execute(IS_FREE, {"id": low})
        assert diagnose(caught.value).sqlstate == "55P03", "the lower id must be held by now"

        await holder.rollback()
        assert (await posting).scalar_one() == "posted"


async def until_it_waits(observer, *, poster_is_waiting):
    waits = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(5):
        while bool(await observer.scalar(waits)) is not poster_is_waiting:
            await observer.rollback()
            await asyncio.sleep(0.01)
    await observer.rollback()


async def test_a_transfer_does_not_wait_for_a_foreign_key_s_check(own_sessions):
    """Inserts that refer to an account hold it FOR KEY SHARE; a transfer goes through beside them.

    Two such inserts that then wanted the row FOR UPDATE would wait for each other.
    """
    low, high = await two_accounts(own_sessions)
    async with own_sessions() as other, own_sessions() as session:
        await other.execute(AS_A_FOREIGN_KEY_DOES, {"id": low})
        order = {"id": uuid.uuid4(), "payer": low, "payee": high, "amount": 1}

        async with asyncio.timeout(1):
            assert (await session.execute(POST, order)).scalar_one() == "posted"


ACCOUNTS = 3
TRANSFERS = 500
AT_ONCE = 16


async def test_a_bank_that_is_nearly_empty_refuses_by_value_and_never_by_constraint(own_sessions):
    """Small balances, few accounts, many tellers: whoever decides on a stale row is found out."""
    accounts = [await open_account(own_sessions, balance="0.05") for _ in range(ACCOUNTS)]
    in_turn = asyncio.Semaphore(AT_ONCE)

    async def post(number):
        payer, payee = (accounts[(number + n) % ACCOUNTS] for n in (0, 1 + number % 2))
        order = {"id": uuid.uuid4(), "payer": payer, "payee": payee, "amount": 1 + number % 4}
        async with in_turn, own_sessions() as session, session.begin():
            return (await session.execute(POST, order)).scalar_one()

    verdicts = await asyncio.gather(*map(post, range(TRANSFERS)))

    assert set(verdicts) == {"posted", "insufficient_funds"}
    async with own_sessions() as session:
        assert await broken_rules(session) == []
