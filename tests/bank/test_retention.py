"""No job that money depends on is ever deleted (db/bank/retention.py, db/store.py)."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from db.store import Store
from jobs import registry
from tests.bank.kit import open_account

ALL = {kind: timedelta(0) for kind in ("build_report", "create_user", "transfer_funds")}

FINISHED = text("""
    INSERT INTO jobs (id, kind, payload, state, purgeable, finished_at)
    VALUES (coalesce(CAST(:id AS uuid), new_id()), :kind, '{}', :state, true,
            clock_timestamp() - interval '1 year')
""")


@pytest.fixture
async def add(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))

    async def insert(kind, state="completed", job_id=None):
        async with sessions() as session, session.begin():
            await session.execute(FINISHED, {"id": job_id, "kind": kind, "state": state})

    return insert


async def purge(sessions):
    async with sessions() as session, session.begin():
        return await Store(session).retention.purge(ALL, 1_000)


async def test_transfers_and_users_keep_their_jobs_even_if_somebody_declares_them_purgeable(
    add, sessions
):
    await add("transfer_funds")
    await add("transfer_funds", "rejected")
    await add("create_user")

    assert await purge(sessions) == dict.fromkeys(ALL, 0)


async def test_a_job_of_any_kind_that_made_a_transfer_stays(add, sessions):
    await open_account(sessions, balance="10")
    async with sessions() as session:
        transfer_id = await session.scalar(text("SELECT id FROM transfers LIMIT 1"))
    await add("build_report", job_id=transfer_id)
    await add("build_report")

    assert (await purge(sessions))["build_report"] == 1


def test_what_moves_money_or_makes_users_is_kept_forever():
    assert registry()["transfer_funds"].policy.kept_for is None
    assert registry()["create_user"].policy.kept_for is None
