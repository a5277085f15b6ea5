"""A job whose end is to be told enqueues its own delivery, however it ends."""

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import text

from db.webhooks import Deliveries, Endpoints
from jobs import Client, DoorClosedError, Request, UnknownEndpointError, registry
from jobs._webhooks.messages import new_secret
from jobs.testing import perform
from tests.letters import a_letter

ENDPOINT = "shop"
DELIVERIES = text("""
    SELECT payload FROM jobs
    WHERE kind = 'deliver_webhook' AND payload->>'job_id' = :job ORDER BY enqueued_at
""")


@pytest.fixture(autouse=True)
async def endpoint(sessions):
    async with sessions.begin() as session:
        await Endpoints(session).add(ENDPOINT, "https://shop.example/hook", new_secret())
    yield ENDPOINT
    async with sessions.begin() as session:
        await Endpoints(session).remove(ENDPOINT)


@pytest.fixture
def client(sessions, letters):
    return Client(sessions=sessions)


async def announced(sessions, job_id):
    async with sessions() as session:
        rows = await session.execute(DELIVERIES, {"job": str(job_id)})
        return [payload["state"] for payload in rows.scalars()]


async def end(sessions, job_id, state):
    finish = text("UPDATE jobs SET state = :state, finished_at = clock_timestamp() WHERE id = :id")
    async with sessions.begin() as session:
        await session.execute(finish, {"id": job_id, "state": state})


@pytest.mark.parametrize("state", ["completed", "rejected", "dead", "cancelled"])
async def test_every_end_is_announced_once(client, sessions, state):
    job = await client.enqueue(a_letter(), notify=ENDPOINT)
    assert await announced(sessions, job.id) == []

    await end(sessions, job.id, state)

    assert await announced(sessions, job.id) == [state]


async def test_an_end_that_is_rolled_back_is_not_announced(client, sessions):
    job = await client.enqueue(a_letter(), notify=ENDPOINT)

    async with sessions() as session:
        await session.execute(text("SELECT cancel_job(:id)"), {"id": job.id})
        await session.rollback()

    assert await announced(sessions, job.id) == []


async def test_a_job_that_is_replayed_announces_its_second_end_too(client, sessions):
    job = await client.enqueue(a_letter(), notify=ENDPOINT)
    await end(sessions, job.id, "dead")
    again = text("UPDATE jobs SET state = 'queued', finished_at = NULL WHERE id = :id")
    async with sessions.begin() as session:
        await session.execute(again, {"id": job.id})

    await end(sessions, job.id, "completed")

    assert await announced(sessions, job.id) == ["dead", "completed"]


async def test_a_job_that_nobody_wants_to_hear_of_announces_nothing(client, sessions):
    job = await client.enqueue(a_letter())

    await end(sessions, job.id, "completed")

    assert await announced(sessions, job.id) == []


async def test_an_end_that_has_come_already_is_told_at_once(client, sessions):
    job = await client.enqueue(a_letter(), key=uuid.uuid4().hex)
    await end(sessions, job.id, "completed")

    async with sessions.begin() as session:
        assert await session.scalar(text("SELECT notify_end(:id, 'shop')"), {"id": job.id})

    assert await announced(sessions, job.id) == ["completed"]


async def test_one_of_many_names_its_endpoint(client, sessions):
    told, quiet = await client.enqueue_many([Request(a_letter(), notify=ENDPOINT), a_letter()])

    await end(sessions, told.id, "completed")
    await end(sessions, quiet.id, "completed")

    assert await announced(sessions, told.id) == ["completed"]
    assert await announced(sessions, quiet.id) == []


async def test_an_unknown_endpoint_is_refused_and_the_callers_transaction_goes_on(client, sessions):
    async with sessions() as session:
        with pytest.raises(UnknownEndpointError, match="webhooks add NAME URL"):
            await client.enqueue(a_letter(), session=session, notify="nobody")
        assert await session.scalar(text("SELECT 1")) == 1


async def test_through_redis_alone_nobody_can_be_told(redis, letters):
    async with Client(redis) as client:
        with pytest.raises(DoorClosedError, match="notify= needs PostgreSQL"):
            await client.enqueue(a_letter(), notify=ENDPOINT)


async def test_the_end_of_an_endpoint_does_not_keep_a_job_from_ending(client, sessions):
    job = await client.enqueue(a_letter(), notify=ENDPOINT)
    async with sessions.begin() as session:
        await Endpoints(session).remove(ENDPOINT)

    await end(sessions, job.id, "completed")

    assert await announced(sessions, job.id) == ["completed"]
    assert await Deliveries(sessions).find(ENDPOINT, job.id, "completed") is None


async def test_a_member_of_a_batch_cannot_have_its_end_told(client):
    with pytest.raises(ValueError, match="a member of a batch takes none"):
        await client.batch([Request(a_letter(), notify=ENDPOINT)])


@pytest.mark.parametrize("how", ["enqueue_many", "batch"])
async def test_neither_can_a_job_that_another_enqueues(letters, monkeypatch, how):
    async def handler(ctx, _payload):
        await getattr(ctx, how)([Request(a_letter(), notify=ENDPOINT)])

    job = replace(registry()["send_letter"], handler=handler)
    monkeypatch.setattr("jobs.testing.registry", lambda: {"send_letter": job})
    with pytest.raises(ValueError, match="a follow-up or a member of a batch takes none"):
        await perform(a_letter())
