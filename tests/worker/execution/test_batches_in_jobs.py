"""Batches that jobs open, and members that add members."""

import uuid
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from sqlalchemy import text

from db.batches import Batches
from db.execution import JobRef
from jobs import Client, Context, Job, Payload, Rejected
from jobs._context import MEMBERS_MAX
from jobs._errors import TooManyFollowUpsError
from jobs._payload import payload_json
from tests.letters import CountBatch, a_letter
from tests.worker.execution.kit import NO_SERVICES, NO_STORE, recording_executor
from worker.execution.delivery import Delivery, with_payload
from worker.execution.outcome import Finished

pytestmark = pytest.mark.usefixtures("letters")


class Payday(Payload):
    """Somebody is to be paid."""

    kind: ClassVar[str] = "payday"


@pytest.fixture
def executor(sessions):
    return recording_executor(sessions).executor


def payday():
    job = JobRef(uuid.uuid4(), "payday", "null", datetime.now(UTC))
    return with_payload(Delivery(job, try_number=1), {})


def job_of(handler, payload=Payday):
    return Job(payload=payload, handler=handler)


def opening(answer=None, members=3):
    """Return a handler that opens a batch and then answers, or raises."""

    async def handle(ctx, _payload):
        await ctx.batch([a_letter(pages=1 + n) for n in range(members)], then=CountBatch())
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle


async def batches_of(sessions, delivery):
    """Return the batches that hold the children of a job."""
    async with sessions() as session:
        ids = await session.scalars(
            text("SELECT DISTINCT batch_id FROM jobs WHERE parent_id = :id"),
            {"id": delivery.job.id},
        )
        return [Client(sessions=sessions).batch_handle(one) for one in ids if one is not None]


async def fire(sessions):
    async with sessions() as session, session.begin():
        return [batch.id for batch in await Batches(session).fire(100)]


async def end(sessions, batch):
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE jobs SET state = 'completed', finished_at = clock_timestamp() "
                "WHERE batch_id = :id AND state = 'queued'"
            ),
            {"id": batch.id},
        )


def delivery_of(job, payload):
    ref = JobRef(job.id, payload.kind, payload_json(payload), datetime.now(UTC))
    return Delivery(ref, try_number=1)


async def test_a_batch_is_opened_with_the_job_that_opens_it(executor, sessions):
    delivery = payday()

    assert await executor.run(job_of(opening()), delivery) == Finished("completed", None)
    (batch,) = await batches_of(sessions, delivery)
    status = await batch.status()
    assert (status.state, status.queued) == ("open", 3)
    assert status.then_id is not None


@pytest.mark.parametrize("answer", [Rejected("no"), ValueError("no wheel")])
async def test_a_job_that_takes_no_effect_opens_none(executor, sessions, answer):
    delivery = payday()
    await executor.run(job_of(opening(answer)), delivery)

    assert await batches_of(sessions, delivery) == []


async def test_a_job_that_is_delivered_twice_opens_one(executor, sessions):
    delivery = payday()
    await executor.run(job_of(opening()), delivery)
    await executor.run(job_of(opening()), delivery)
    (batch,) = await batches_of(sessions, delivery)

    assert (await batch.status()).members == 3


async def test_an_empty_batch_of_a_job_fires_with_it(executor, sessions):
    ids = []

    async def handle(ctx, _payload):
        ids.append(await ctx.batch([], then=CountBatch()))

    await executor.run(job_of(handle), payday())

    assert (await Client(sessions=sessions).batch_handle(ids[0]).status()).state == "fired"


async def test_a_member_adds_others_and_the_batch_waits_for_them(executor, sessions):
    letter = a_letter(pages=3)
    batch = await Client(sessions=sessions).batch([letter], then=CountBatch())

    async def handle(ctx, request):
        await ctx.enqueue(request.model_copy(update={"pages": 2}), in_batch=True)

    outcome = await executor.run(job_of(handle, type(letter)), delivery_of(batch.jobs[0], letter))

    assert outcome == Finished("completed", None)
    assert batch.id not in await fire(sessions)
    status = await batch.status()
    assert (status.completed, status.queued) == (1, 1)
    await end(sessions, batch)
    assert batch.id in await fire(sessions)
    assert (await batch.status()).completed == 2


async def test_a_member_that_was_cancelled_meanwhile_adds_none(executor, sessions):
    letter = a_letter(pages=3)
    batch = await Client(sessions=sessions).batch([letter], then=CountBatch())

    async def handle(ctx, request):
        await ctx.enqueue(request.model_copy(update={"pages": 2}), in_batch=True)
        await batch.cancel()

    await executor.run(job_of(handle, type(letter)), delivery_of(batch.jobs[0], letter))
    status = await batch.status()

    assert (status.state, status.cancelled, status.members) == ("cancelled", 1, 1)


async def test_a_job_in_no_batch_that_adds_to_it_fails(executor, sessions):
    async def handle(ctx, _payload):
        await ctx.enqueue(a_letter(), in_batch=True)

    delivery = payday()
    await executor.run(job_of(handle), delivery)
    async with sessions() as session:
        errors = await session.scalar(
            text("SELECT errors FROM jobs WHERE id = :id"), {"id": delivery.job.id}
        )

    assert [error["sqlstate"] for error in errors] == ["TL007"]


async def test_a_handler_alone_is_tested_by_the_batches_that_it_opens():
    ctx = Context(uuid.uuid4(), 1, datetime.now(UTC), store=NO_STORE, services=NO_SERVICES)
    await opening()(ctx, Payday())

    assert [len(batch.members) for batch in ctx.batches] == [3]


async def test_a_batch_of_a_job_has_a_bound():
    ctx = Context(uuid.uuid4(), 1, datetime.now(UTC), store=NO_STORE, services=NO_SERVICES)

    with pytest.raises(TooManyFollowUpsError):
        await ctx.batch([a_letter()] * (MEMBERS_MAX + 1))
