"""Work goes on without Redis, on a real PostgreSQL and a Valkey that comes and goes."""

import asyncio
import time
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest
from sqlalchemy import text

from db.leases import Leases
from jobs._wire import put, queued_job
from tests.letters import a_letter, file, letters_at
from worker.app import create_worker
from worker.dev.servers import ValkeyServer
from worker.execution import retry
from worker.loop import worker as loop
from worker.maintenance import fallback as module
from worker.maintenance import relay
from worker.settings import Settings

DEADLINE_S = 30
SLOTS = 4


@pytest.fixture
def valkey(tmp_path):
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def settings(database_url, valkey, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", valkey.url)
    monkeypatch.setenv("TELLER_CONCURRENCY", str(SLOTS))
    monkeypatch.setenv("TELLER_HEALTH_PORT", "0")
    # A worker that stops waits so long for a Redis that will not come back here.
    monkeypatch.setattr(loop, "RECORD_PATIENCE_S", 0.5)
    return Settings()


@pytest.fixture
async def sessions(sessions, letters):
    """Begin with no jobs; the workers know letters."""
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    return sessions


class Post:
    """What letters do in a test: noted when they begin, and held until a test lets them go."""

    def __init__(self):
        self.begun = []
        self.running = set()
        self.together = set()
        self.open = asyncio.Event()
        self.open.set()
        self.fault = None
        """A SQLSTATE that letters of two pages raise."""

    async def __call__(self, ctx, letter):
        self.begun.append(ctx.job_id)
        self.running.add(ctx.job_id)
        self.together.add(frozenset(self.running))
        try:
            if self.fault and letter.pages == 2:
                await ctx.store.session.execute(
                    text(f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{self.fault}'; END $$")
                )
            await self.open.wait()
        finally:
            self.running.discard(ctx.job_id)


@pytest.fixture
def post(monkeypatch):
    post = Post()
    monkeypatch.setattr(file, "post", post)
    return post


@asynccontextmanager
async def running(settings, worker_of=lambda _worker: None):
    """Run a worker; yield its events by name, each as an `asyncio.Event` to wait for."""
    emitted: dict[str, asyncio.Event] = {}

    def note(name, _fields):
        emitted.setdefault(name, asyncio.Event()).set()

    worker = create_worker(settings, handle_signals=False, subscribers=[note])
    worker_of(worker)
    task = asyncio.create_task(worker.async_run())
    try:
        await wait_for_event(emitted, "worker.started")
        yield emitted
    finally:
        await worker.close()
        await asyncio.wait({task})


async def lose(valkey, emitted):
    """Kill Valkey, and wait until the worker has noticed that, and not something earlier."""
    emitted.pop("redis.lost", None)
    await asyncio.to_thread(valkey.kill)
    await wait_for_event(emitted, "redis.lost")


async def bring_back(valkey, emitted):
    emitted.pop("redis.back", None)
    await asyncio.to_thread(valkey.start)
    await wait_for_event(emitted, "redis.back")


async def wait_for_event(emitted, name):
    async with asyncio.timeout(DEADLINE_S):
        await emitted.setdefault(name, asyncio.Event()).wait()


async def until(condition):
    """Wait until a condition, which may be a coroutine's, holds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            holds = condition()
            if await holds if asyncio.iscoroutine(holds) else holds:
                return
            await asyncio.sleep(0.02)


async def accept(sessions, letter=None, *, key=None):
    """Accept a letter by SQL alone: nothing is sent to Redis."""
    async with sessions() as session, session.begin():
        return uuid.UUID(
            str(
                await session.scalar(
                    text("SELECT enqueue_job('send_letter', CAST(:payload AS jsonb), :key)"),
                    {"payload": (letter or a_letter()).model_dump_json(), "key": key},
                )
            )
        )


async def row_of(sessions, job_id):
    async with sessions() as session:
        found = await session.execute(
            text(
                "SELECT state, leased_by, crashes, attempts, errors, "
                "extract(epoch FROM run_at - now()) AS due_in_s FROM jobs WHERE id = :id"
            ),
            {"id": job_id},
        )
        return found.one()


async def finished(sessions, ids):
    async def none_is_queued():
        async with sessions() as session:
            left = text("SELECT count(*) FROM jobs WHERE id = ANY(:ids) AND state = 'queued'")
            return not await session.scalar(left, {"ids": ids})

    await until(none_is_queued)


async def set_row(sessions, job_id, assignment):
    async with sessions() as session, session.begin():
        await session.execute(text(f"UPDATE jobs SET {assignment} WHERE id = :id"), {"id": job_id})


async def test_jobs_are_claimed_from_postgresql_until_redis_answers_again(
    settings, sessions, valkey
):
    async with running(settings) as emitted:
        await lose(valkey, emitted)
        ids = [await accept(sessions, a_letter(1, "on the way")) for _ in range(20)]
        await finished(sessions, ids)
        assert sorted(await letters_at(sessions, "on the way")) == sorted(ids)

        await bring_back(valkey, emitted)
        more = [await accept(sessions, a_letter(1, "on the way")) for _ in range(5)]
        await finished(sessions, more)
        assert sorted(await letters_at(sessions, "on the way")) == sorted(ids + more)


async def test_a_frozen_redis_is_as_good_as_none(settings, sessions, valkey, post):
    async with running(settings) as emitted:
        valkey.pause()
        try:
            await finished(sessions, [await accept(sessions) for _ in range(5)])
        finally:
            valkey.resume()
        await wait_for_event(emitted, "redis.back")

    assert len(post.begun) == 5


async def test_a_worker_starts_without_redis(settings, sessions, valkey, post):
    await asyncio.to_thread(valkey.kill)
    job_id = await accept(sessions)

    async with running(settings):
        await finished(sessions, [job_id])

    assert post.begun == [job_id]


async def test_a_row_that_is_locked_is_stepped_over(settings, sessions, valkey, post):
    await asyncio.to_thread(valkey.kill)
    locked = await accept(sessions)

    async with sessions() as session:
        await session.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": locked})
        async with running(settings):
            await finished(sessions, [await accept(sessions)])
            assert locked not in post.begun
            await session.commit()
            await finished(sessions, [locked])


async def test_a_job_that_is_put_back_waits_and_lets_others_through(
    settings, sessions, valkey, post, monkeypatch
):
    monkeypatch.setattr(retry, "BLOCKED_DELAY_MIN_S", retry.BLOCKED_DELAY_MAX_S)
    await asyncio.to_thread(valkey.kill)
    post.fault = "53100"  # the disk is full
    bad = [await accept(sessions, a_letter(2, f"{n} High Street")) for n in range(SLOTS)]
    good = [await accept(sessions, a_letter(1, f"{n} Low Street")) for n in range(20)]

    async with running(settings):
        await finished(sessions, good)
        await until(lambda: _all_released(sessions, bad))

    assert sorted(post.begun) == sorted(bad + good)
    for job_id in bad:
        row = await row_of(sessions, job_id)
        assert (row.state, row.crashes) == ("queued", 0)
        assert row.due_in_s > module.LEASE.total_seconds()


async def _all_released(sessions, ids):
    return all([(await row_of(sessions, job_id)).leased_by is None for job_id in ids])


async def test_a_job_runs_at_one_worker_however_long_it_takes(
    settings, sessions, valkey, post, monkeypatch
):
    monkeypatch.setattr(module, "LEASE", timedelta(seconds=1))
    monkeypatch.setattr(module, "RENEW_INTERVAL_S", 0.1)
    await asyncio.to_thread(valkey.kill)
    post.open.clear()
    job_id = await accept(sessions)

    async with running(settings), running(settings):
        await until(lambda: post.begun)
        leased_by = (await row_of(sessions, job_id)).leased_by
        assert leased_by is not None
        await asyncio.sleep(2 * module.LEASE.total_seconds())
        row = await row_of(sessions, job_id)
        assert (row.leased_by, row.due_in_s > 0) == (leased_by, True)
        post.open.set()
        await finished(sessions, [job_id])

    assert post.begun == [job_id]


async def test_slots_are_filled_again_as_they_become_free(
    settings, sessions, valkey, post, monkeypatch
):
    monkeypatch.setattr(module, "IDLE_PAUSE_S", 3_600)
    monkeypatch.setattr(module, "BUSY_PAUSE_S", 3_600)
    await asyncio.to_thread(valkey.kill)
    ids = [await accept(sessions, a_letter(1, f"{n} High Street")) for n in range(5 * SLOTS)]

    async with running(settings):
        await finished(sessions, ids)

    assert len(post.begun) == 5 * SLOTS


async def test_what_runs_when_redis_is_lost_is_leased_before_anything_is_claimed(
    settings, sessions, valkey, post
):
    post.open.clear()
    workers = []
    async with running(settings, workers.append) as emitted:
        job_id = await accept(sessions)
        await until(lambda: post.begun)
        await lose(valkey, emitted)

        async def leased():
            return (await row_of(sessions, job_id)).leased_by == workers[0].worker_id

        await until(leased)
        async with running(settings):
            other = await accept(sessions, a_letter(1, "1 Low Street"))
            await until(lambda: other in post.begun)
            post.open.set()
            await finished(sessions, [job_id, other])

    assert sorted(post.begun) == sorted([job_id, other])


async def test_a_worker_that_stops_gives_back_what_it_had_leased(settings, sessions, valkey, post):
    await asyncio.to_thread(valkey.kill)
    post.open.clear()
    job_id = await accept(sessions)

    async with running(settings):
        await until(lambda: post.begun)

    row = await row_of(sessions, job_id)
    assert (row.state, row.leased_by, row.crashes) == ("queued", None, 0)
    assert row.due_in_s <= 0


async def leave_by_a_crash(sessions, job_id):
    """Have a job's row as a worker leaves it that died under the job."""
    async with sessions() as session, session.begin():
        leased = await Leases(session, "dead").claim("default", 100, timedelta(), unsent=False)
        assert [one.id for one in leased] == [job_id]


async def test_a_job_under_which_a_process_died_runs_alone(settings, sessions, valkey, post):
    await asyncio.to_thread(valkey.kill)
    suspect = await accept(sessions, a_letter(1, "0 High Street"))
    await leave_by_a_crash(sessions, suspect)
    ids = [await accept(sessions, a_letter(1, f"{n} Low Street")) for n in range(6 * SLOTS)]
    post.open.clear()
    asyncio.get_running_loop().call_later(1, post.open.set)

    async with running(settings):
        await finished(sessions, [suspect, *ids])

    assert [some for some in post.together if suspect in some] == [frozenset({suspect})]


async def test_a_suspect_does_not_wait_for_ends_that_redis_does_not_take(
    settings, sessions, valkey, post
):
    post.open.clear()
    async with running(settings) as emitted:
        ended = await accept(sessions)
        await until(lambda: post.begun)
        await lose(valkey, emitted)
        post.open.set()
        await finished(sessions, [ended])
        suspect = await accept(sessions, a_letter(1, "1 High Street"))
        await set_row(sessions, suspect, "crashes = 1")
        await finished(sessions, [suspect])


async def test_one_that_does_not_end_cannot_keep_a_suspect_waiting_for_others_to_run(
    settings, sessions, valkey, post, monkeypatch
):
    monkeypatch.setattr(module, "ALONE_WAIT_S", 0.5)
    monkeypatch.setattr(module, "SUSPECT_INTERVAL_S", 0.2)
    await asyncio.to_thread(valkey.kill)
    post.open.clear()
    async with running(settings):
        endless = await accept(sessions, a_letter(1, "0 High Street"))
        await until(lambda: endless in post.begun)
        suspect = await accept(sessions, a_letter(1, "1 High Street"))
        await set_row(sessions, suspect, "crashes = 1")
        await asyncio.sleep(0.5)
        innocent = await accept(sessions, a_letter(1, "2 High Street"))
        await until(lambda: innocent in post.begun)
        assert suspect not in post.begun
        post.open.set()
        await finished(sessions, [endless, suspect, innocent])


async def test_a_job_that_another_worker_still_runs_when_redis_is_back_waits_for_its_end(
    settings, sessions, valkey, post
):
    workers = []
    async with running(settings, workers.append) as emitted:
        await lose(valkey, emitted)
        async with sessions() as session, session.begin():
            job_id = await session.scalar(
                text(
                    "INSERT INTO jobs (kind, payload, leased_by, run_at) "
                    "VALUES ('send_letter', CAST(:payload AS jsonb), 'another', "
                    "now() + interval '1 hour') RETURNING id"
                ),
                {"payload": a_letter().model_dump_json()},
            )
        await bring_back(valkey, emitted)
        await until(lambda: workers[0].connection.available)
        sent = queued_job(str(job_id), "send_letter", a_letter().model_dump_json(), None)
        await put(workers[0].pool, [sent])

        async def is_put_off():
            score = await workers[0].pool.zscore("arq:queue", str(job_id))
            return score is not None and score / 1000 > time.time() + 3_000

        await until(is_put_off)
        assert post.begun == []

        await set_row(sessions, job_id, "leased_by = NULL, run_at = now()")
        await workers[0].pool.zadd("arq:queue", {str(job_id): 1})
        await finished(sessions, [job_id])


async def test_while_redis_is_full_what_it_does_not_take_runs_from_its_row(
    settings, sessions, valkey, post, monkeypatch
):
    monkeypatch.setattr(relay, "REFUSED_MAX_S", 0.5)
    workers = []
    async with running(settings, workers.append) as emitted:
        redis = workers[0].pool
        await redis.config_set("maxmemory", "1mb")
        ids = [await accept(sessions, a_letter(1, f"{n} High Street")) for n in range(50)]
        await wait_for_event(emitted, "redis.refuses")
        await finished(sessions, ids)

        await redis.config_set("maxmemory", "0")
        await wait_for_event(emitted, "redis.back")
        last = await accept(sessions)
        await finished(sessions, [last])

    assert sorted(post.begun) == sorted([*ids, last])


async def test_an_abort_cancels_the_job_in_postgresql(settings, sessions, valkey):
    from arq import create_pool
    from arq.connections import RedisSettings

    from worker.execution import serializer as wire

    pool = await create_pool(
        RedisSettings.from_dsn(valkey.url),
        job_serializer=wire.serialize,
        job_deserializer=wire.deserialize,
    )
    job_id = await accept(sessions, a_letter(1, "aborted"))
    payload = {"address": "aborted"}
    await pool.enqueue_job("send_letter", payload, _job_id=str(job_id), _defer_by=3600)
    await pool.zadd("arq:abort", {str(job_id): 9_999_999_999_999})
    await pool.zadd("arq:queue", {str(job_id): 1})

    async with running(settings) as emitted:
        await wait_for_event(emitted, "job.aborted")

    async with sessions() as session:
        state = await session.scalar(
            text("SELECT state FROM jobs WHERE id = :id"), {"id": uuid.UUID(str(job_id))}
        )
    assert state == "cancelled"
    assert await letters_at(sessions, "aborted") == []
    await pool.aclose()
