"""What the relay has sent it can send again: a job's row is kept until the job is final."""

import asyncio
import uuid

import pytest
from sqlalchemy import text

from tests.worker.loop.kit import eventually
from worker.maintenance import relay as module
from worker.maintenance.relay import Relay
from worker.monitoring.events import Events

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
                "INSERT INTO jobs (id, kind, payload, enqueued_at) VALUES "
                "(:id, 'send_letter', '{}', clock_timestamp() - interval '10 seconds')"
            ),
            {"id": made},
        )
    return str(made)


async def test_a_job_that_was_sent_is_sent_again_after_a_flush(relay, sessions, redis):
    await relay.round()
    job_id = await accept(sessions)
    swept = await relay.round()
    assert (swept.jobs, swept.rebuilt) == (1, False)

    await redis.flushdb()
    rebuilt = await relay.round()

    assert (rebuilt.jobs, rebuilt.rebuilt) == (1, True)
    assert await redis.zscore(QUEUE, job_id) is not None


async def fill(sessions, count):
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "INSERT INTO jobs (kind, payload) "
                "SELECT 'send_letter', '{}' FROM generate_series(1, :count)"
            ),
            {"count": count},
        )


async def test_relays_that_find_a_flush_one_after_the_other_build_the_queue_once(
    relay, sessions, redis, monkeypatch
):
    """Each that began anew would take the mark from the one before, and none would ever end."""
    monkeypatch.setattr(module, "REBUILD_PAGE", 5)
    await fill(sessions, 300)
    relays = [relay, *(Relay(sessions, redis, QUEUE, Events()) for _ in range(2))]
    page, rounds = relay._page, []

    async def let_the_others_look_at_each_page(after):
        rounds.extend([await other.round() for other in relays[1:]])
        return await page(after)

    monkeypatch.setattr(relay, "_page", let_the_others_look_at_each_page)
    first = await relay.round()

    assert (first.jobs, first.rebuilt) == (300, True)
    assert rounds
    assert not any(one.rebuilt or one.jobs for one in rounds)
    assert [(await one.round()).rebuilt for one in relays] == [False] * 3


async def test_a_relay_that_died_in_a_rebuild_is_replaced(relay, sessions, redis, monkeypatch):
    monkeypatch.setattr(module, "REBUILD_MARK_S", 1)
    await fill(sessions, 10)

    async def die(_after):
        raise asyncio.CancelledError

    with monkeypatch.context() as once:
        once.setattr(relay, "_page", die)
        with pytest.raises(asyncio.CancelledError):
            await relay.round()
    other = Relay(sessions, redis, QUEUE, Events())
    assert not (await other.round()).rebuilt

    async def rebuilt():
        return (await other.round()).rebuilt

    await eventually(rebuilt, deadline_s=5)
    assert await redis.zcard(QUEUE) == 10


async def test_a_rebuild_that_failed_begins_anew_at_once(relay, sessions, redis, monkeypatch):
    await fill(sessions, 10)

    async def lose_the_connection(_after):
        raise OSError

    with monkeypatch.context() as once:
        once.setattr(relay, "_page", lose_the_connection)
        with pytest.raises(OSError):  # noqa: PT011 - it has no message
            await relay.round()

    assert (await relay.round()).rebuilt
    assert await redis.zcard(QUEUE) == 10


async def test_a_redis_that_does_not_answer_does_not_hold_the_rows_of_a_sweep(
    relay, sessions, monkeypatch
):
    await relay.round()
    job_id = await accept(sessions)
    monkeypatch.setattr(module, "SEND_TIMEOUT_S", 0.05)

    async def be_silent(*_):
        await asyncio.Event().wait()

    with monkeypatch.context() as once:
        once.setattr(module, "put", be_silent)
        with pytest.raises(TimeoutError):
            await relay.round()

    async with sessions() as session, session.begin():
        free = text("SELECT id FROM jobs WHERE id = :id FOR UPDATE NOWAIT")
        assert await session.scalar(free, {"id": uuid.UUID(job_id)})
    assert (await relay.round()).jobs == 1
