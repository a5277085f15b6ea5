"""Retention deletes what may be deleted, and nothing else."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from db.execution import JobRef, Record
from db.retention import Retention, purge_statement
from jobs import registry
from tests.worker.execution.kit import recording_executor
from worker.execution.delivery import Delivery, with_payload

OLD = timedelta(days=100)
KEPT_FOR = {"send_letter": timedelta(days=30)}


@pytest.fixture
async def add(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))

    async def insert(kind, state, *, age=OLD, count=1, purgeable=True):
        async with sessions() as session, session.begin():
            await session.execute(
                text(
                    "INSERT INTO jobs (kind, payload, state, purgeable, finished_at) "
                    "SELECT :kind, '{}', :state, :purgeable, CASE WHEN :state <> 'queued' "
                    "THEN clock_timestamp() - CAST(:age AS interval) END "
                    "FROM generate_series(1, :count)"
                ),
                {"kind": kind, "state": state, "age": age, "count": count, "purgeable": purgeable},
            )

    return insert


async def purge(sessions, rows_max=10_000, *, kept="false"):
    async with sessions() as session, session.begin():
        return await Retention(session, kept=kept).purge(KEPT_FOR, rows_max)


async def left(sessions):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT kind || ' ' || state FROM jobs ORDER BY kind, state")
        )
        return list(rows.scalars())


async def test_only_final_jobs_of_declared_kinds_that_are_old_enough_are_deleted(add, sessions):
    await add("send_letter", "completed")
    await add("send_letter", "rejected")
    await add("send_letter", "cancelled", purgeable=False)  # as `cancel_job` leaves it
    await add("send_letter", "completed", age=timedelta(days=29))
    await add("send_letter", "queued", purgeable=False)
    await add("send_letter", "dead")
    await add("open_letter", "completed")

    assert await purge(sessions) == {"send_letter": 3}
    assert await left(sessions) == [
        "open_letter completed",
        "send_letter completed",
        "send_letter dead",
        "send_letter queued",
    ]


async def test_a_job_that_finished_while_its_kind_was_kept_forever_stays(add, sessions):
    await add("send_letter", "completed", purgeable=False)

    assert await purge(sessions) == {"send_letter": 0}


async def test_a_job_that_meets_the_stores_condition_stays(add, sessions):
    await add("send_letter", "completed")
    await add("send_letter", "rejected")

    assert await purge(sessions, kept="state = 'completed'") == {"send_letter": 1}
    assert await left(sessions) == ["send_letter completed"]


async def test_a_run_deletes_a_bounded_number_and_the_next_goes_on(add, sessions):
    await add("send_letter", "completed", count=2_500)

    assert (await purge(sessions, rows_max=2_100))["send_letter"] == 2_100
    assert (await purge(sessions, rows_max=2_100))["send_letter"] == 400


async def test_the_batch_is_found_by_its_index(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = await session.execute(
            text(f"EXPLAIN {purge_statement('false').text}"),
            {"kind": "send_letter", "kept_for": OLD, "batch": 10},
        )
        assert "jobs_purgeable_idx" in "\n".join(plan.scalars())


@pytest.mark.parametrize("purgeable", [True, False])
async def test_a_job_is_marked_when_it_finishes(sessions, purgeable):
    job = JobRef(uuid.uuid4(), "send_letter", "{}", datetime.now(UTC))
    async with sessions() as session, session.begin():
        await Record(session).postpone(job, timedelta())
        assert await Record(session).finish(job, "completed", None, purgeable=purgeable)

    assert await is_purgeable(sessions, job.id) is purgeable


async def test_the_executor_marks_a_job_whose_kind_declares_how_long_it_is_kept(sessions):
    job = JobRef(uuid.uuid4(), "purge_record", "{}", datetime.now(UTC))
    delivery = with_payload(Delivery(job, 1), {})

    await recording_executor(sessions).executor.run(registry()["purge_record"], delivery)

    assert await is_purgeable(sessions, job.id) is True


async def is_purgeable(sessions, job_id):
    async with sessions() as session:
        return await session.scalar(
            text("SELECT purgeable FROM jobs WHERE id = :id"), {"id": job_id}
        )
