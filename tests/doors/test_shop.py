"""The example service: an order and its payment are one transaction, and both can be followed."""

import asyncio
import importlib.util
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from tests.bank.kit import open_account
from tests.worker.running import running_worker

APP = Path(__file__).parents[2] / "examples" / "shop" / "app.py"


@pytest.fixture
async def shop(teller_jobs, database_url, redis_url, redis, sessions, monkeypatch):
    """The shop's own app, with the wheel of ours that its README has people install."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("SHOP_ACCOUNT", str(await open_account(sessions, "EUR")))
    spec: Any = importlib.util.spec_from_file_location("shop_app", APP)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = module.create_app()
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client,
    ):
        yield client


@pytest.fixture
async def order(sessions):
    buyer = await open_account(sessions, "EUR", "20")
    return {"buyer": str(buyer), "price": "12.34", "currency": "EUR"}


async def answered(shop, url):
    """Ask until the order is decided: a page in a browser would do the same."""
    async with asyncio.timeout(60):
        while (status := (await shop.get(url)).json())["status"] in {"queued", "running"}:
            pass
    return status


async def test_an_order_is_accepted_with_the_jobs_id_and_then_paid(
    shop, order, database_url, redis_url
):
    answer = await shop.put(url := f"/orders/{uuid.uuid4()}", json=order)
    async with running_worker(database_url, redis_url):
        status = await answered(shop, answer.headers["Location"])

    assert answer.status_code == 202
    assert answer.headers["Location"] == url
    assert status["status"] == "completed"
    assert status["answer"] == {"transfer_id": answer.json()["job"]}


async def test_an_order_that_cannot_be_paid_says_why(shop, order, database_url, redis_url):
    answer = await shop.put(f"/orders/{uuid.uuid4()}", json={**order, "price": "99"})
    async with running_worker(database_url, redis_url):
        status = await answered(shop, answer.headers["Location"])

    assert status["status"] == "rejected"
    assert status["answer"] == {"rejected": "insufficient_funds"}


async def test_the_same_order_again_is_the_same_job(shop, order):
    url = f"/orders/{uuid.uuid4()}"
    first, again = [(await shop.put(url, json=order)).json() for _ in range(2)]

    assert first["job"] == again["job"]
    assert (first["status"], again["status"]) == ("queued", "known")


async def test_another_order_under_the_same_id_is_a_conflict_and_changes_nothing(
    shop, order, sessions
):
    order_id = uuid.uuid4()
    await shop.put(f"/orders/{order_id}", json=order)
    conflict = await shop.put(f"/orders/{order_id}", json={**order, "price": "1.00"})
    async with sessions() as session:
        price = await session.scalar(
            text("SELECT price FROM shop_orders WHERE id = :id"), {"id": order_id}
        )

    assert conflict.status_code == 409
    assert price == "12.34"


async def test_an_order_that_fails_leaves_no_job_behind(shop, order, sessions, monkeypatch):
    async with sessions() as session, session.begin():
        await session.execute(text("ALTER TABLE shop_orders RENAME TO away"))
    order_id = uuid.uuid4()
    with pytest.raises(Exception, match="shop_orders"):
        await shop.put(f"/orders/{order_id}", json=order)
    async with sessions() as session, session.begin():
        await session.execute(text("ALTER TABLE away RENAME TO shop_orders"))
        jobs = await session.scalar(
            text("SELECT count(*) FROM jobs WHERE key = :key"), {"key": f"order-{order_id}"}
        )

    assert jobs == 0


@pytest.mark.parametrize(
    ("change", "status"),
    [({"price": "0"}, 422), ({"price": 5}, 422), ({"currency": "euro"}, 422), ({"x": 1}, 422)],
)
async def test_a_bad_order_is_refused(shop, order, change, status):
    answer = await shop.put(f"/orders/{uuid.uuid4()}", json={**order, **change})

    assert answer.status_code == status


async def test_an_unknown_order_is_not_found(shop):
    assert (await shop.get(f"/orders/{uuid.uuid4()}")).status_code == 404
