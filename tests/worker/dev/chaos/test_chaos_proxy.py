"""The lost reply to COMMIT: nobody can know whether it happened, and nothing may go wrong."""

import asyncio
import random
import uuid

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine, create_sessions
from db.errors import Trouble, diagnose
from tests.bank.kit import TRANSFER, balance_of, broken_rules, open_account, posted, transfer
from tests.worker.execution.kit import again, recording_executor
from worker.dev.chaos.proxy import CommitProxy, is_commit

TRANSFERS = 400
LOST_SHARE = 0.05
AT_ONCE = 16
pytestmark = pytest.mark.slow

SEED = 20260418


@pytest.fixture
async def proxy(database_url):
    """A proxy before the database."""
    url = make_url(database_url)
    made = CommitProxy(url.host or "", url.port or 0)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def far_engine(proxy, database_url):
    far = make_url(database_url).set(port=proxy.port).render_as_string(hide_password=False)
    made = create_engine(far, pool_size=AT_ONCE, application_name="teller-tests")
    yield made
    await made.dispose()


async def test_what_goes_through_the_proxy_is_unchanged(far_engine):
    long = "x" * 1_000_000
    async with far_engine.connect() as connection:
        assert await connection.scalar(text("SELECT :long"), {"long": long}) == long


async def test_a_lost_reply_is_lost_after_the_commit(far_engine, proxy, sessions):
    name = f"lost_{uuid.uuid4().hex}"
    proxy.lose_replies(1)

    with pytest.raises(DBAPIError) as caught:
        async with far_engine.begin() as connection:
            await connection.execute(text(f"CREATE TABLE {name} ()"))

    assert diagnose(caught.value).trouble is Trouble.CONNECTION
    assert (proxy.lost, proxy.armed) == (1, 0)
    async with sessions() as session:
        assert await session.scalar(text("SELECT to_regclass(:name)"), {"name": name})


@pytest.mark.parametrize(
    ("data", "is_one"),
    [
        (b"Q\x00\x00\x00\x0cCOMMIT;\x00", True),
        (b"Q\x00\x00\x00\x0bcommit\x00", True),
        (b"Q\x00\x00\x00\x0bBEGIN;\x00", False),
        (b"P\x00\x00\x00\x0bCOMMIT\x00", False),
        (b"", False),
    ],
)
def test_only_the_simple_query_commit_is_one(data, is_one):
    assert is_commit(data) is is_one


@pytest.mark.timeout(180)
async def test_hundreds_of_transfers_with_lost_replies_are_each_made_once(
    far_engine, proxy, sessions
):
    """5 % of the COMMITs happen and nobody is told: 0 lost, 0 doubled."""
    chance = random.Random(SEED)
    one = recording_executor(create_sessions(far_engine), jitter=chance.random)
    accounts = [await open_account(sessions, balance="1000.00") for _ in range(8)]
    orders = [transfer(*chance.sample(accounts, 2)) for _ in range(TRANSFERS)]
    at_once = asyncio.Semaphore(AT_ONCE)

    async def run(order):
        async with at_once:
            if chance.random() < LOST_SHARE:
                proxy.lose_replies(1)
            return await one.run(order, TRANSFER)

    outcomes = await asyncio.gather(*(run(order) for order in orders))

    assert {outcome.state for outcome in outcomes} == {"completed"}
    assert len(await posted(sessions, [order.job.id for order in orders])) == TRANSFERS
    assert proxy.lost > TRANSFERS * LOST_SHARE / 2
    # Each lost reply made a job run again, and find that it was done.
    assert one.count("job.duplicate") == proxy.lost
    assert one.count("job.finished") == TRANSFERS - proxy.lost
    async with sessions() as session:
        assert await broken_rules(session) == []
    assert far_engine.pool.checkedout() == 0
    assert sum([await balance_of(sessions, one) for one in accounts]) == 8 * 100_000

    replayed = await asyncio.gather(*(one.run(again(order), TRANSFER) for order in orders[:100]))
    assert all(outcome.replayed for outcome in replayed)
