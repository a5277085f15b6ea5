"""What the relay has sent it can send again: a rebuild of the queue after Redis lost it."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from redis.exceptions import RedisError
from sqlalchemy import text

from db.dispatch import Dispatch
from jobs import Client
from tests.letters import LetterSent, a_letter
from tests.worker.loop.kit import eventually
from tests.worker.running import running_worker
from worker.maintenance import relay as module
from worker.maintenance.relay import AHEAD, BATCH_MAX, Relay
from worker.monitoring.events import Events

QUEUE = "arq:queue"


@pytest.fixture
async def relay(letters, sessions, redis):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    return Relay(sessions, redis, QUEUE, Events())


def another(sessions, redis):
    """Return the relay of another process."""
    return Relay(sessions, redis, QUEUE, Events())


async def fill(sessions, count=1, *, due=timedelta(), sent=False):
    """Accept jobs, a millisecond apart, as clients and relays left them a while ago."""
    async with sessions() as session, session.begin():
        rows = await session.execute(
            text(
                "INSERT INTO jobs (kind, payload, enqueued_at, run_at, dispatched_at) "
                "SELECT 'send_letter', '{}', now() - interval '10 seconds', "
                "  now() + CAST(:due AS interval) + (n - 10000) * interval '1 millisecond', "
                "  CASE WHEN :sent THEN now() END "
                "FROM generate_series(1, :count) AS n RETURNING id"
            ),
            {"count": count, "due": due, "sent": sent},
        )
        return [str(row.id) for row in rows]


async def rebuild(relay):
    """Do rounds until one ends a rebuild; return how many jobs were sent in all."""
    sent = 0
    for _ in range(1_000):
        one = await relay.round()
        sent += one.jobs
        if one.rebuilt:
            return sent
        assert one.pause_s == 0
    raise AssertionError("the rebuild does not end")


async def pass_time(sessions, by):
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE jobs SET run_at = run_at - CAST(:by AS interval), "
                "dispatched_at = dispatched_at - CAST(:by AS interval)"
            ),
            {"by": by},
        )


async def test_a_job_that_was_sent_is_sent_again_after_a_flush(relay, sessions, redis):
    await relay.round()
    [job_id] = await fill(sessions)
    swept = await relay.round()
    assert (swept.jobs, swept.rebuilt) == (1, False)

    await redis.flushdb()
    rebuilt = await relay.round()

    assert (rebuilt.jobs, rebuilt.rebuilt) == (1, True)
    assert await redis.zscore(QUEUE, job_id) is not None


async def test_a_flushed_redis_gets_everything_back_once(relay, sessions, redis, monkeypatch):
    await rebuild(relay)
    ids = await fill(sessions, 3 * BATCH_MAX, sent=True)
    await redis.flushdb()
    monkeypatch.setattr(relay, "_page_size", module.BatchSize(100))

    assert await rebuild(relay) == len(ids)
    assert await redis.zcard(QUEUE) == len(ids)
    assert (await relay.round()).jobs == 0


async def test_what_a_rebuild_sent_is_not_swept_as_well(relay, sessions, redis):
    ids = await fill(sessions, 50)
    async with sessions() as session:
        # Another relay sweeps, so that this one only rebuilds.
        assert await Dispatch(session, "default").try_to_lead()
        assert await rebuild(relay) == len(ids)

    assert (await relay.round()).jobs == 0


@pytest.mark.parametrize("sent", [False, True], ids=["never sent", "sent before"])
async def test_a_job_that_is_due_later_comes_on_time_after_a_flush(relay, sessions, redis, sent):
    await relay.round()
    due = AHEAD + timedelta(seconds=15)
    [job_id] = await fill(sessions, due=due, sent=sent)
    await redis.flushdb()
    await relay.round()
    assert await redis.zscore(QUEUE, job_id) is None

    await pass_time(sessions, timedelta(seconds=10))
    await relay.round()
    assert await redis.zscore(QUEUE, job_id) is not None


async def test_any_number_of_later_jobs_is_forgotten_in_bounded_steps(
    relay, sessions, redis, monkeypatch
):
    await fill(sessions, 95, due=timedelta(days=1), sent=True)
    monkeypatch.setattr(relay, "_page_size", module.BatchSize(20))
    assert await rebuild(relay) == 0

    async with sessions() as session:
        kept = text("SELECT count(*) FROM jobs WHERE dispatched_at IS NOT NULL")
        assert await session.scalar(kept) == 0


async def test_a_flush_in_the_middle_of_a_rebuild_is_noticed(relay, sessions, redis, monkeypatch):
    ids = await fill(sessions, 30, sent=True)
    monkeypatch.setattr(relay, "_page_size", module.BatchSize(10))
    mark, flushed = relay._mark_sent, []

    async def flush_after_the_second(page):
        await mark(page)
        flushed.append(page)
        if len(flushed) == 2:
            await redis.flushdb()

    monkeypatch.setattr(relay, "_mark_sent", flush_after_the_second)
    await rebuild(relay)

    assert await redis.zcard(QUEUE) == len(ids)


async def test_a_rebuild_goes_on_where_it_was_whoever_began_it(relay, sessions, redis, monkeypatch):
    ids = await fill(sessions, 100, sent=True)
    other = another(sessions, redis)
    for one in (relay, other):
        monkeypatch.setattr(one, "_page_size", module.BatchSize(10))
    sent = 0
    for one in [relay, other] * 4:
        sent += (await one.round()).jobs
    assert sent == await redis.zcard(QUEUE) == 80

    assert sent + await rebuild(other) == len(ids)


async def test_a_rebuild_that_failed_goes_on_where_it_was_at_once(
    relay, sessions, redis, monkeypatch
):
    await fill(sessions, 30, sent=True)
    monkeypatch.setattr(relay, "_page_size", module.BatchSize(10))
    assert (await relay.round()).jobs == 10

    async def lose_the_connection(_after, _limit):
        raise OSError

    with monkeypatch.context() as once:
        once.setattr(relay, "_page", lose_the_connection)
        with pytest.raises(OSError):  # noqa: PT011 - it has no message
            await relay.round()

    assert await rebuild(another(sessions, redis)) == 20


async def test_a_relay_that_stops_in_a_rebuild_lets_go_of_it(relay, sessions, redis, monkeypatch):
    await fill(sessions, 10, sent=True)
    reached = asyncio.Event()

    async def hang(_after, _limit):
        reached.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(relay, "_page", hang)
    task = asyncio.create_task(relay.round())
    await reached.wait()
    assert not (await another(sessions, redis).round()).rebuilt
    task.cancel()
    await asyncio.wait({task})

    assert await rebuild(another(sessions, redis)) == 10


async def test_a_relay_that_died_in_a_rebuild_is_replaced(relay, sessions, redis, monkeypatch):
    monkeypatch.setattr(module, "REBUILD_MARK_S", 1)
    await fill(sessions, 10, sent=True)

    async def die(*_):
        raise asyncio.CancelledError

    monkeypatch.setattr(relay, "_page", die)
    monkeypatch.setattr(relay, "_release_mark", die)
    with pytest.raises(asyncio.CancelledError):
        await relay.round()
    other = another(sessions, redis)
    assert not (await other.round()).rebuilt

    async def rebuilt():
        return (await other.round()).rebuilt

    await eventually(rebuilt, deadline_s=5)
    assert await redis.zcard(QUEUE) == 10


async def test_a_job_whose_body_redis_threw_away_runs_from_its_row_at_once(
    letters, database_url, redis_url, sessions, redis
):
    client = Client(redis, sessions=sessions)
    job = await client.enqueue(a_letter())

    async def sent():
        return await redis.delete(f"arq:job:{job.id}")

    await eventually(sent)
    async with running_worker(database_url, redis_url):
        assert await job.result(30) == LetterSent(letter_id=job.id)
    await client.aclose()


NONSENSE = ["\ufffd", "2026-01-01 x", f"2026-01-01T00:00:00 {uuid.UUID(int=1)}", b"\xff"]


@pytest.mark.parametrize("position", NONSENSE, ids=str)
async def test_a_position_that_is_none_means_the_beginning(relay, sessions, redis, position):
    ids = await fill(sessions, 3, sent=True)
    run_id = (await redis.info("server"))["run_id"]
    await redis.hset("arq:queue:rebuild:position", "run_id", run_id)
    await redis.hset("arq:queue:rebuild:position", "position", position)

    assert await rebuild(relay) == len(ids)


async def test_a_mark_that_never_ends_is_no_relays(relay, sessions, redis):
    ids = await fill(sessions, 3)
    await redis.set("arq:queue:rebuild", "somebody")
    await rebuild(relay)

    assert await redis.zcard(QUEUE) == len(ids)


async def test_while_one_relay_rebuilds_others_sweep(relay, sessions, redis, monkeypatch):
    await fill(sessions, 10, sent=True)
    page, swept = relay._page, []

    async def accept_and_let_another_sweep(after, limit):
        [job_id] = await fill(sessions)
        await another(sessions, redis).round()
        swept.append(await redis.zscore(QUEUE, job_id))
        return await page(after, limit)

    monkeypatch.setattr(relay, "_page", accept_and_let_another_sweep)
    await rebuild(relay)

    assert swept
    assert None not in swept


async def test_a_new_job_does_not_wait_for_the_end_of_a_rebuild(
    relay, sessions, redis, monkeypatch
):
    await fill(sessions, 1_000, due=-timedelta(minutes=1), sent=True)
    monkeypatch.setattr(relay, "_page_size", module.BatchSize(20))
    await relay.round()
    [job_id] = await fill(sessions)
    await relay.round()

    assert await redis.zscore(QUEUE, job_id) is not None
    assert await redis.zcard(QUEUE) < 100


async def test_a_redis_that_does_not_answer_does_not_hold_the_rows_of_a_sweep(
    relay, sessions, monkeypatch
):
    await relay.round()
    [job_id] = await fill(sessions)
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


async def test_a_redis_that_takes_no_jobs_is_known_until_it_does_again(
    relay, sessions, monkeypatch
):
    await relay.step()
    await fill(sessions)

    async def refuse(*_, **__):
        raise RedisError

    monkeypatch.setattr(module, "REFUSED_MAX_S", 0.05)
    with monkeypatch.context() as full:
        full.setattr(module, "put", refuse)
        full.setattr(relay._redis, "zadd", refuse)
        with pytest.raises(RedisError):
            await relay.step()
        assert not relay.refused
        await asyncio.sleep(0.1)
        assert relay.refused

        # Nothing is left to be sent, since it ran from its row: it is still known.
        async with sessions() as session, session.begin():
            await session.execute(text("DELETE FROM jobs"))
        with pytest.raises(RedisError):
            await relay.step()
        assert relay.refused

    await relay.step()
    assert not relay.refused
