"""Money moves with stock arq on both ends: its client enqueues, its loop runs, ours is nowhere."""

import asyncio
import uuid
from pathlib import Path
from typing import Any

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, get_kwargs
from sqlalchemy import text

from db.store import Store
from jobs._wire import job_id_of
from tests.bank.kit import balance_of, broken_rules, open_account
from worker.app import Options
from worker.execution import serializer as wire
from worker.settings import Settings

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def settings(database_url, redis_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    return Settings()


@pytest.fixture
async def client(redis, redis_url, sessions):
    # The relay would rightly send again what an earlier test left waiting.
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs WHERE state = 'queued'"))
    pool = await create_pool(
        RedisSettings.from_dsn(redis_url),
        job_serializer=wire.serialize,
        job_deserializer=wire.deserialize,
    )
    yield pool
    await pool.aclose()


async def work_off(settings, **changes):
    """Run arq's own worker in burst mode until the queue is empty."""
    options: dict[str, Any] = get_kwargs(Options(settings))  # type: ignore[arg-type]  # reads vars
    worker = Worker(
        **{**options, "burst": True, "handle_signals": False, "poll_delay": 0.01} | changes
    )
    try:
        async with asyncio.timeout(60):
            await worker.async_run()
    finally:
        await worker.close()


async def state_of(sessions, redis_id):
    async with sessions() as session:
        return await session.scalar(
            text("SELECT state FROM jobs WHERE id = :id"), {"id": job_id_of(redis_id)}
        )


async def test_a_user_is_created_and_money_moves(settings, client, sessions):
    name = uuid.uuid4().hex
    created = await client.enqueue_job(
        "create_user",
        {"username": name, "email": f"{name}@example.com", "currencies": ["EUR", "JPY"]},
    )
    await work_off(settings)
    user = await created.result(timeout=5)
    async with sessions() as session:
        world = await Store(session).ledger.world_account("EUR")
    moved = await client.enqueue_job(
        "transfer_funds",
        {
            "from_account": str(world),
            "to_account": user["accounts"]["EUR"],
            "amount": "12.34",
            "currency": "EUR",
        },
        _job_id=f"order-{name}",
    )
    await work_off(settings)

    assert await moved.result(timeout=5) == {"transfer_id": str(job_id_of(f"order-{name}"))}
    assert await balance_of(sessions, uuid.UUID(user["accounts"]["EUR"])) == 1234


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"username": "TAKEN-{}"}, "username_taken"),
        ({"email": "Taken-{}@EXAMPLE.com"}, "email_taken"),
        ({"email": "not-an-address"}, "email_invalid"),
        ({"currencies": ["EUR", "QQQ"]}, "unknown_currency"),
    ],
    ids=["username", "email", "bad email", "currency"],
)
async def test_a_wish_that_cannot_be_granted_is_rejected_with_a_code(
    settings, client, sessions, change, code
):
    run = uuid.uuid4().hex[:8]
    taken = {"username": f"taken-{run}", "email": f"taken-{run}@example.com", "currencies": ["EUR"]}
    await client.enqueue_job("create_user", taken)
    await work_off(settings)
    fresh = {"username": f"new-{run}", "email": f"new-{run}@example.com", "currencies": ["EUR"]}
    filled = {k: v.format(run) if isinstance(v, str) else v for k, v in change.items()}

    job = await client.enqueue_job("create_user", {**fresh, **filled})
    await work_off(settings)

    assert (await job.result(timeout=5))["rejected"]["code"] == code
    assert await state_of(sessions, job.job_id) == "rejected"
    async with sessions() as session:
        left = await session.scalar(
            text("SELECT count(*) FROM users WHERE username = :name"), {"name": f"new-{run}"}
        )
    assert left == 0


async def test_hundreds_of_transfers_among_four_accounts_leave_the_books_whole(
    settings, client, sessions
):
    """16 at a time, a fifth of them crossing pairs, a tenth sent twice under the same id."""
    accounts = [await open_account(sessions, balance="1000.00") for _ in range(4)]
    async with sessions() as session:
        before = await Store(session).ledger.balance_sums()

    orders = []
    for number in range(400):
        payer, payee = accounts[number % 4], accounts[(number * 7 + 1 + number // 4) % 4]
        if number % 5 == 0:
            payer, payee = accounts[number // 5 % 2], accounts[1 - number // 5 % 2]
        orders.append(
            (f"bank-{uuid.uuid4().hex}", payer, payee, f"{number % 37 + 1}.{number % 90 + 10}")
        )
    for number, (key, payer, payee, amount) in enumerate(orders):
        payload = {
            "from_account": str(payer),
            "to_account": str(payee),
            "amount": amount,
            "currency": "EUR",
        }
        await client.enqueue_job("transfer_funds", payload, _job_id=key)
        if number % 10 == 0:
            # The same job under another Redis id: what a client does that lost the answer.
            await client.enqueue_job("transfer_funds", payload, _job_id=str(job_id_of(key)))

    await work_off(settings, max_jobs=16, queue_read_limit=600)

    async with sessions() as session:
        assert await Store(session).ledger.balance_sums() == before
        assert await broken_rules(session) == []
        states = dict(
            (
                await session.execute(
                    text(
                        "SELECT state, count(*) FROM jobs WHERE redis_id LIKE 'bank-%' "
                        "OR id = ANY(:ids) GROUP BY state"
                    ),
                    {"ids": [job_id_of(key) for key, *_ in orders]},
                )
            ).all()
        )
        doubled = await session.scalar(
            text(
                "SELECT count(*) FROM jobs j WHERE (j.state = 'completed') <> "
                "EXISTS (SELECT FROM transfers t WHERE t.id = j.id) AND id = ANY(:ids)"
            ),
            {"ids": [job_id_of(key) for key, *_ in orders]},
        )
    assert set(states) <= {"completed", "rejected"}
    assert sum(states.values()) == len(orders)
    assert doubled == 0
