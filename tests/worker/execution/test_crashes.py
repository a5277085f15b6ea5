"""A job whose processes die is known before it runs, and ends after the third."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from tests.worker.execution.test_executor import delivery_of, job_of, make, toys
from worker.execution.outcome import Finished, Later
from worker.execution.retry import CRASHES_MAX

__all__ = ["toys"]


def seen(rows):
    """Return a handler that notes what its own row says while it runs."""

    async def look(ctx, toy):
        query = text("SELECT state, crashes FROM jobs WHERE id = :id")
        row = (await ctx.store.session.execute(query, {"id": ctx.job_id})).one_or_none()
        rows.append(None if row is None else tuple(row))
        return await make(ctx, toy)

    return look


async def test_the_first_delivery_pays_nothing_for_the_record(toys):
    rows = []
    await toys.executor.run(job_of(seen(rows)), delivery_of())

    assert rows == [None]


@pytest.mark.parametrize(("try_number", "crashes"), [(2, 0), (1, 1), (5, 2)])
async def test_from_the_second_delivery_on_a_job_has_its_row_before_it_runs(
    toys, try_number, crashes
):
    rows = []
    delivery = delivery_of(try_number=try_number, crashes=crashes)
    outcome = await toys.executor.run(job_of(seen(rows)), delivery)

    assert rows == [("queued", crashes)]
    assert outcome.state == "completed"
    assert (await toys.stored(delivery)).crashes == 0


async def test_a_job_under_which_too_many_processes_died_ends_without_a_run(toys):
    rows = []
    delivery = delivery_of(try_number=CRASHES_MAX + 1, crashes=CRASHES_MAX)
    outcome = await toys.executor.run(job_of(seen(rows)), delivery)

    assert rows == []
    assert outcome.state == "dead"
    (error,) = await toys.errors(delivery)
    assert error["error"] == "WorkerDied"
    assert f"{CRASHES_MAX} worker processes died" in error["message"]
    assert toys.names() == ["job.dead"]


async def test_crashes_that_redis_has_forgotten_are_known_from_the_row(toys, sessions):
    """A flush deletes the loop's count; the row has it, as of the last delivery."""
    delivery = delivery_of(try_number=3, crashes=2)
    gone = job_of(make)

    async def die(_ctx, _toy):
        raise SystemExit

    await toys.executor.run(job_of(die), delivery)  # an end: it clears the count
    assert (await toys.stored(delivery)).crashes == 0
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE jobs SET crashes = :crashes WHERE id = :id"),
            {"id": delivery.job.id, "crashes": CRASHES_MAX},
        )
    outcome = await toys.executor.run(gone, replace(delivery, try_number=2, crashes=0))

    assert outcome.state == "dead"


async def test_a_lease_counts_itself_and_is_no_crash(toys, sessions):
    delivery = delivery_of(try_number=2)
    await toys.executor.run(None, delivery)
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE jobs SET crashes = :crashes, leased_by = 'me' WHERE id = :id"),
            {"id": delivery.job.id, "crashes": CRASHES_MAX},
        )

    by_id = replace(delivery, by_id=True, job=replace(delivery.job, payload_json="null"))
    outcome = await toys.executor.run(job_of(make), by_id)

    assert isinstance(outcome, Finished)
    assert outcome.state == "completed"


async def test_any_end_of_a_run_clears_the_count(toys):
    async def fail(_ctx, _toy):
        raise ValueError

    delivery = delivery_of(try_number=2, crashes=2)
    outcome = await toys.executor.run(job_of(fail), delivery)

    assert isinstance(outcome, Later)
    assert (await toys.stored(delivery)).crashes == 0
