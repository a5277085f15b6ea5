"""The relay on a real PostgreSQL and a real Valkey."""

import uuid
from datetime import timedelta

import orjson
import pytest
from sqlalchemy import text

from worker.maintenance.relay import BATCH_MAX, Relay
from worker.monitoring.events import Events

QUEUE = "arq:queue"


@pytest.fixture
async def relay(letters, sessions, redis):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    return Relay(sessions, redis, QUEUE, Events())


async def accept(
    sessions, count=1, *, age=timedelta(seconds=10), due=timedelta(), kind="send_letter"
):
    """Insert queued jobs as clients left them `age` ago."""
    async with sessions() as session, session.begin():
        rows = await session.execute(
            text(
                "INSERT INTO jobs (kind, payload, enqueued_at, run_at) "
                "SELECT :kind, '{\"x\": 1}', clock_timestamp() - CAST(:age AS interval), "
                "clock_timestamp() + CAST(:due AS interval) "
                "FROM generate_series(1, :count) RETURNING id"
            ),
            {"kind": kind, "age": age, "due": due, "count": count},
        )
        return [str(row.id) for row in rows]


async def test_a_job_that_its_client_did_not_send_is_sent(relay, sessions, redis):
    await relay.round()
    (job_id,) = await accept(sessions)

    sent = await relay.round()

    assert (sent.jobs, sent.rebuilt) == (1, False)
    assert await redis.zscore(QUEUE, job_id) is not None
    assert orjson.loads(await redis.get(f"arq:job:{job_id}"))["f"] == "send_letter"


async def test_a_client_has_a_moment_to_send_its_job_itself(relay, sessions):
    await relay.round()
    await accept(sessions, age=timedelta())

    assert (await relay.round()).jobs == 0


async def test_a_job_is_not_sent_again_and_again(relay, sessions):
    await relay.round()
    await accept(sessions)

    assert [(await relay.round()).jobs for _ in range(2)] == [1, 0]


async def test_a_job_whose_time_is_far_off_is_not_sent_yet(relay, sessions):
    await relay.round()
    await accept(sessions, due=timedelta(hours=1))

    assert (await relay.round()).jobs == 0


async def test_personal_data_does_not_go_through_the_queue(relay, sessions, redis):
    await relay.round()
    (job_id,) = await accept(sessions, kind="send_card")

    await relay.round()

    assert orjson.loads(await redis.get(f"arq:job:{job_id}"))["a"] == []


async def test_a_flushed_redis_gets_everything_back(relay, sessions, redis):
    ids = await accept(sessions, 3 * BATCH_MAX)
    await relay.round()
    await redis.flushdb()

    sent = await relay.round()

    assert (sent.jobs, sent.rebuilt) == (len(ids), True)
    assert await redis.zcard(QUEUE) == len(ids)
    assert not (await relay.round()).rebuilt


async def test_a_flush_in_the_middle_of_a_rebuild_is_noticed(relay, sessions, redis, monkeypatch):
    ids = await accept(sessions, 10)
    page = relay._page
    flushed = []

    async def flush_after_the_first(after):
        found = await page(after)
        if not found and not flushed:
            flushed.append(await redis.flushdb())
        return found

    monkeypatch.setattr(relay, "_page", flush_after_the_first)
    await relay.round()
    assert await redis.zcard(QUEUE) == 0

    assert (await relay.round()).rebuilt
    assert await redis.zcard(QUEUE) == len(ids)


async def test_relays_side_by_side_send_each_job_once(relay, sessions, redis):
    import asyncio

    await relay.round()
    ids = await accept(sessions, 400)
    others = [Relay(sessions, redis, QUEUE, Events()) for _ in range(4)]

    rounds = await asyncio.gather(*(one.round() for one in others))

    assert sum(one.jobs for one in rounds) == len(ids)
    assert await redis.zcard(QUEUE) == len(ids)


async def test_a_job_that_a_transaction_holds_is_not_waited_for(relay, sessions):
    await relay.round()
    (job_id,) = await accept(sessions)
    async with sessions() as session, session.begin():
        await session.execute(
            text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": uuid.UUID(job_id)}
        )
        assert (await relay.round()).jobs == 0
    assert (await relay.round()).jobs == 1


def test_the_constants_make_sense_together():
    from worker.maintenance.relay import GRACE, RESEND_AFTER

    assert timedelta() < GRACE < RESEND_AFTER
