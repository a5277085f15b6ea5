"""Nobody is told that a job is cancelled unless its row says so, for every later delivery."""

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import text

from db import engine as limits
from tests.worker.execution.test_executor import (
    delivery_of,
    job_of,
    make,
    toys,
    unreachable,
)
from worker.execution import executor as executor_module
from worker.execution.outcome import Finished, Later

__all__ = ["toys", "unreachable"]

CANCELLED = Finished("cancelled", {"reason": "on request"})


async def cancel(toys, delivery):
    return await toys.executor.cancel(delivery, "on request")


@pytest.mark.parametrize("try_number", [1, 2])
async def test_a_cancel_without_a_row_leaves_a_tombstone_that_later_deliveries_meet(
    toys, try_number
):
    name = uuid.uuid4().hex
    delivery = delivery_of(name, try_number=try_number)

    cancelled = await cancel(toys, delivery)
    later = await toys.executor.run(job_of(make), delivery)

    assert cancelled == CANCELLED
    assert later == replace(CANCELLED, replayed=True)
    assert await toys.toys(name) == 0


async def test_a_tombstone_of_a_job_whose_payload_nobody_knew_is_met_as_well(toys):
    delivery = delivery_of()
    unknown = replace(delivery, job=replace(delivery.job, kind="<unknown>", payload_json="null"))

    await cancel(toys, unknown)

    assert await toys.executor.run(job_of(make), delivery) == replace(CANCELLED, replayed=True)


async def test_a_job_that_ended_otherwise_is_told_as_it_ended(toys):
    name = uuid.uuid4().hex
    delivery = delivery_of(name)
    done = await toys.executor.run(job_of(make), delivery)

    assert await cancel(toys, delivery) == replace(done, replayed=True)
    assert "job.aborted" not in toys.names()


async def test_a_row_that_somebody_locks_is_not_cancelled_and_nobody_is_told_so(
    toys, sessions, monkeypatch
):
    monkeypatch.setattr(executor_module, "ABORT_WAIT_S", 0.2)
    delivery = delivery_of()
    await toys.executor.run(None, delivery)
    async with sessions() as other, other.begin():
        await other.execute(
            text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": delivery.job.id}
        )
        while_locked = await cancel(toys, delivery)

    assert limits.LOCK_TIMEOUT_MS > 200
    assert isinstance(while_locked, Later)
    assert (await toys.stored(delivery)).state == "queued"
    assert await cancel(toys, delivery) == CANCELLED


async def test_without_a_database_nobody_is_told_that_a_job_is_cancelled(unreachable):
    assert isinstance(await cancel(unreachable, delivery_of()), Later)
