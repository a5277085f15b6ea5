"""What the relay has sent it can send again: the record is kept until the job is final."""

import uuid

import pytest
from sqlalchemy import text

from worker.events import Events
from worker.relay import Relay

QUEUE = "arq:queue"


@pytest.fixture
async def relay(sessions, redis):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    return Relay(sessions, redis, QUEUE, Events())


async def accept(sessions):
    made = uuid.uuid4()
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "INSERT INTO jobs (id, kind, payload, payload_hash, enqueued_at) VALUES "
                "(:id, 'transfer_funds', '{}', '', clock_timestamp() - interval '10 seconds')"
            ),
            {"id": made},
        )
    return str(made)


async def test_a_job_that_was_sent_is_sent_again_after_a_flush(relay, sessions, redis):
    await relay.round()
    job_id = await accept(sessions)
    swept = await relay.round()
    assert (swept.jobs, swept.rebuilt) == (1, False)

    await redis.flushall()
    rebuilt = await relay.round()

    assert (rebuilt.jobs, rebuilt.rebuilt) == (1, True)
    assert await redis.zscore(QUEUE, job_id) is not None
