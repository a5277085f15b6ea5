"""The relay on a real PostgreSQL and a real Valkey."""

import uuid
from datetime import timedelta

import orjson
import pytest
import redis.asyncio as redis_asyncio
from sqlalchemy import text

from db.dispatch import SENT_WHOLE_BYTES_MAX, TAKE_UNSENT, Dispatch
from db.leases import CLAIM, CLAIM_SUSPECT, CLAIM_UNSENT, SUSPECT_IS_DUE, Leases
from db.workers import BLOCKED, QUEUES
from worker.maintenance import relay as module
from worker.maintenance.relay import AHEAD, BATCH_MAX, GRACE, RESEND_AFTER, Relay
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


async def test_a_queue_that_became_another_type_is_moved_aside_and_rebuilt(relay, sessions, redis):
    (job_id,) = await accept(sessions)
    await relay.round()
    await redis.set(QUEUE, "spoiled")

    sent = await relay.round()

    assert (sent.jobs, sent.rebuilt) == (1, True)
    assert await redis.zscore(QUEUE, job_id) is not None
    assert await redis.get(f"{QUEUE}:spoiled") == b"spoiled"


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


async def test_while_one_relay_sweeps_another_does_not(relay, sessions):
    await relay.round()
    await accept(sessions)
    async with sessions() as session:
        assert await Dispatch(session, "default").try_to_lead()
        assert (await relay.round()).jobs == 0
    assert (await relay.round()).jobs == 1


async def test_a_job_that_runs_from_its_row_is_sent_once_its_lease_is_over(relay, sessions):
    await relay.round()
    await accept(sessions)
    async with sessions() as session, session.begin():
        await Leases(session, "somebody").claim("default", 1, timedelta(seconds=30), unsent=False)
    assert (await relay.round()).jobs == 0

    async with sessions() as session, session.begin():
        await session.execute(text("UPDATE jobs SET run_at = now() - interval '1 second'"))
    assert (await relay.round()).jobs == 1
    async with sessions() as session:
        assert await session.scalar(text("SELECT leased_by FROM jobs")) is None


async def test_a_job_that_was_sent_long_ago_and_has_not_run_is_sent_again(relay, sessions):
    await relay.round()
    await accept(sessions)
    await relay.round()
    await make_older(sessions, RESEND_AFTER - timedelta(seconds=10))
    assert (await relay.round()).jobs == 0

    await make_older(sessions, timedelta(seconds=11))
    assert [(await relay.round()).jobs for _ in range(2)] == [1, 0]


async def make_older(sessions, by):
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE jobs SET run_at = run_at - CAST(:by AS interval), "
                "dispatched_at = dispatched_at - CAST(:by AS interval)"
            ),
            {"by": by},
        )


async def test_a_payload_that_is_large_is_left_in_its_row(relay, sessions, redis):
    await relay.round()
    small, large = await accept(sessions), await accept(sessions)
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE jobs SET payload = jsonb_build_object('x', repeat('y', :size))"),
            {"size": SENT_WHOLE_BYTES_MAX + 1},
        )
        await session.execute(
            text("UPDATE jobs SET payload = '{\"n\": 1.50}' WHERE id = :id"),
            {"id": uuid.UUID(small[0])},
        )
    await relay.round()

    assert b'"a":[{"n": 1.50}]' in await redis.get(f"arq:job:{small[0]}")
    assert orjson.loads(await redis.get(f"arq:job:{large[0]}"))["a"] == []


async def test_a_line_too_slow_for_a_batch_is_sent_smaller_ones(relay, sessions, monkeypatch):
    await relay.round()
    await accept(sessions, 100)
    sizes = []

    async def slow(_redis, jobs, _queue):
        sizes.append(len(jobs))
        if len(jobs) > 40:
            raise TimeoutError

    monkeypatch.setattr(module, "put", slow)
    monkeypatch.setattr(relay, "_batch", module.BatchSize(100))
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await relay.round()
    sent = await relay.round()

    assert (sent.jobs, sizes) == (25, [100, 50, 25])


async def test_one_that_may_not_ask_for_the_run_id_works_and_notices_a_flush(
    relay, sessions, redis, redis_url
):
    await redis.acl_setuser(
        "noinfo", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"]
    )
    mute = redis_asyncio.from_url(redis_url, username="noinfo", password="x")
    try:
        relay = Relay(sessions, mute, QUEUE, Events())
        assert (await relay.round()).rebuilt
        (job_id,) = await accept(sessions)
        assert (await relay.round()).jobs == 1

        await redis.flushdb()
        assert (await relay.round()).rebuilt
        assert await redis.zscore(QUEUE, job_id) is not None
    finally:
        await mute.aclose()
        await redis.acl_deluser("noinfo")


async def test_keys_of_its_own_that_somebody_spoiled_are_made_anew(relay, sessions, redis):
    for key, spoil in (
        (f"{QUEUE}:epoch", lambda key: redis.lpush(key, 1)),
        (f"{QUEUE}:rebuild", lambda key: redis.lpush(key, 1)),
        (f"{QUEUE}:rebuild:position", lambda key: redis.set(key, 1)),
    ):
        await redis.flushdb()
        await spoil(key)
        await relay.round()
        assert (await relay.round()).rebuilt


# -- what a sweep costs ---------------------------------------------------------------------------

PAGES_READ_MAX = 40
PAGES_WRITTEN_MAX = 1_000
"""For 16 rows and their entries in every index."""


async def test_a_sweep_reads_neither_what_is_sent_nor_what_is_due_tomorrow(relay, sessions):
    """The cost must not grow with the backlog: each worker process sweeps every second."""
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "INSERT INTO jobs (kind, payload, enqueued_at, run_at, dispatched_at) "
                "SELECT 'send_letter', '{}', now() - interval '1 hour', "
                "  now() - interval '1 minute' + tomorrow * interval '1 day', "
                "  CASE WHEN sent THEN now() - interval '1 hour' * tomorrow END "
                "FROM generate_series(1, :each), "
                "  (VALUES (true, 0), (false, 1), (true, 1)) AS sort (sent, tomorrow)"
            ),
            {"each": 20_000},
        )
        await session.execute(text("ANALYZE jobs"))

    sweep = {
        "queue": "default",
        "limit": BATCH_MAX,
        "ahead": AHEAD,
        "grace": GRACE,
        "resend_after": RESEND_AFTER,
        "without": [],
    }
    queues = {"queues": ["default"], "without": []}
    assert await pages_read(sessions, TAKE_UNSENT, sweep) <= PAGES_READ_MAX
    # Five looks into indexes for each queue.
    assert await pages_read(sessions, QUEUES, {"counted": 1, "shown": 1}) <= 2 * PAGES_READ_MAX
    assert await pages_read(sessions, SUSPECT_IS_DUE, queues) <= PAGES_READ_MAX
    assert await pages_read(sessions, BLOCKED, {"counted": 1, "shown": 1}) <= PAGES_READ_MAX
    lease = {"limit": 16, "lease": timedelta(seconds=1), "worker": "w"}
    assert await pages_read(sessions, CLAIM_SUSPECT, lease | queues) <= PAGES_READ_MAX
    lease |= {"queue": "default", "without": []}
    assert await pages_read(sessions, CLAIM_UNSENT, lease) <= PAGES_READ_MAX
    assert await pages_read(sessions, CLAIM, lease) <= PAGES_WRITTEN_MAX


async def pages_read(sessions, statement, bounds):
    """Return how many pages a statement reads, from memory or from disk."""
    explain = text(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement.text}")
    async with sessions() as session:
        [[plan]] = (await session.scalars(explain, bounds)).all()
    found = plan["Plan"]
    return found["Shared Hit Blocks"] + found["Shared Read Blocks"]


def test_the_constants_make_sense_together():
    assert timedelta() < GRACE < RESEND_AFTER
    assert max(module.SEND_TIMEOUT_S, module.PAGE_TIMEOUT_S) < Relay.step_timeout_s
    assert Relay.step_timeout_s < module.REBUILD_MARK_S
