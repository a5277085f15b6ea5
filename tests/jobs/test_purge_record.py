"""Retention forgets what may be forgotten, and nothing that money depends on."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from db.retention import Retention
from jobs import registry
from tests.bank.kit import open_account

OLD = timedelta(days=100)
KEPT = {"build_report": timedelta(days=30), "transfer_funds": timedelta(days=30)}


@pytest.fixture
async def add(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))

    async def insert(kind, state, age=OLD, count=1, job_id=None):
        async with sessions() as session, session.begin():
            await session.execute(
                text(
                    "INSERT INTO jobs (id, kind, payload, payload_hash, state, finished_at) "
                    "SELECT coalesce(CAST(:id AS uuid), uuidv7()), :kind, '{}', '', :state, "
                    "CASE WHEN :state <> 'queued' "
                    "THEN clock_timestamp() - CAST(:age AS interval) END "
                    "FROM generate_series(1, :count)"
                ),
                {"id": job_id, "kind": kind, "state": state, "age": age, "count": count},
            )

    return insert


async def purge(sessions, rows_max=10_000, kept=None):
    async with sessions() as session, session.begin():
        return await Retention(session).purge(kept or KEPT, rows_max)


async def left(sessions):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT kind || ' ' || state FROM jobs ORDER BY kind, state")
        )
        return list(rows.scalars())


async def test_only_final_jobs_of_declared_kinds_that_are_old_enough_go(add, sessions):
    await add("build_report", "completed")
    await add("build_report", "rejected")
    await add("build_report", "cancelled")
    await add("build_report", "completed", age=timedelta(days=29))
    await add("build_report", "queued")
    await add("build_report", "dead")
    await add("send_letter", "completed")

    assert await purge(sessions) == {"build_report": 3, "transfer_funds": 0}
    assert await left(sessions) == [
        "build_report completed",
        "build_report dead",
        "build_report queued",
        "send_letter completed",
    ]


async def test_a_transfer_keeps_its_job_even_if_somebody_declares_it_purgeable(add, sessions):
    await add("transfer_funds", "completed")
    await add("transfer_funds", "rejected")
    await add("create_user", "completed")

    await purge(sessions, kept={**KEPT, "create_user": timedelta(days=1)})

    assert len(await left(sessions)) == 3


async def test_a_job_of_any_kind_that_made_a_transfer_stays(add, sessions):
    await open_account(sessions, balance="10")
    async with sessions() as session:
        transfer_id = await session.scalar(text("SELECT id FROM transfers LIMIT 1"))
    await add("build_report", "completed", job_id=transfer_id)

    assert await purge(sessions) == {"build_report": 0, "transfer_funds": 0}


async def test_a_run_deletes_a_bounded_number_and_the_next_goes_on(add, sessions):
    await add("build_report", "completed", count=2_500)

    assert (await purge(sessions, rows_max=2_100))["build_report"] == 2_100
    assert (await purge(sessions, rows_max=2_100))["build_report"] == 400


async def test_the_batch_is_found_by_its_index(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = await session.execute(
            text(
                "EXPLAIN SELECT id FROM jobs WHERE kind = 'build_report' "
                "AND finished_at < now() AND state IN ('completed', 'rejected', 'cancelled') "
                "AND kind NOT IN ('create_user', 'transfer_funds') ORDER BY finished_at LIMIT 10"
            )
        )
        assert "jobs_purgeable_idx" in "\n".join(plan.scalars())


def test_what_moves_money_or_makes_users_is_kept_for_ever():
    assert registry()["transfer_funds"].policy.kept_for is None
    assert registry()["create_user"].policy.kept_for is None
    assert registry()["purge_record"].policy.kept_for is not None
