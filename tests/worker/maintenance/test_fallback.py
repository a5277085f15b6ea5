"""Work goes on without Redis, on a real PostgreSQL and a Valkey that comes and goes."""

import asyncio
import uuid
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text

from db.engine import create_sessions
from tests.letters import letters_at
from worker.app import create_worker
from worker.dev.servers import ValkeyServer
from worker.settings import Settings

DEADLINE_S = 30


@pytest.fixture
def valkey(tmp_path):
    with ValkeyServer(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def settings(letters, database_url, valkey, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", valkey.url)
    monkeypatch.setenv("TELLER_CONCURRENCY", "4")
    return Settings()


@asynccontextmanager
async def running(settings):
    """Run a worker; yield its events by name, each as an `asyncio.Event` to wait for."""
    emitted: dict[str, asyncio.Event] = {}

    def note(name, _fields):
        emitted.setdefault(name, asyncio.Event()).set()

    worker = create_worker(settings, handle_signals=False, subscribers=[note])
    task = asyncio.create_task(worker.async_run())
    try:
        await wait_for_event(emitted, "worker.started")
        yield emitted
    finally:
        await worker.close()
        await asyncio.wait({task})


async def wait_for_event(emitted, name):
    async with asyncio.timeout(DEADLINE_S):
        await emitted.setdefault(name, asyncio.Event()).wait()


async def accept_letter(sessions, address="12 High Street"):
    """Accept a job by SQL alone: nothing is sent to Redis."""
    async with sessions() as session, session.begin():
        return await session.scalar(
            text(
                "SELECT enqueue_job('send_letter', "
                "jsonb_build_object('address', CAST(:address AS text)))"
            ),
            {"address": address},
        )


async def finished(sessions, ids):
    async with asyncio.timeout(DEADLINE_S):
        while True:
            async with sessions() as session:
                left = await session.scalar(
                    text("SELECT count(*) FROM jobs WHERE id = ANY(:ids) AND state = 'queued'"),
                    {"ids": ids},
                )
            if not left:
                return
            await asyncio.sleep(0.02)


async def test_jobs_are_claimed_from_postgresql_until_redis_answers_again(settings, engine, valkey):
    sessions = create_sessions(engine)

    async with running(settings) as emitted:
        await asyncio.to_thread(valkey.kill)
        await wait_for_event(emitted, "redis.lost")
        ids = [await accept_letter(sessions, "on the way") for _ in range(20)]
        await finished(sessions, ids)
        assert sorted(await letters_at(sessions, "on the way")) == sorted(ids)

        await asyncio.to_thread(valkey.start)
        await wait_for_event(emitted, "redis.back")
        more = [await accept_letter(sessions, "on the way") for _ in range(5)]
        await finished(sessions, more)
        assert sorted(await letters_at(sessions, "on the way")) == sorted(ids + more)


async def test_a_frozen_redis_is_as_good_as_none(settings, engine, valkey):
    sessions = create_sessions(engine)

    async with running(settings) as emitted:
        valkey.pause()
        try:
            ids = [await accept_letter(sessions, "frozen") for _ in range(5)]
            await finished(sessions, ids)
        finally:
            valkey.resume()
        await wait_for_event(emitted, "redis.back")

    assert sorted(await letters_at(sessions, "frozen")) == sorted(ids)


async def test_a_row_that_another_worker_holds_is_left_to_it(settings, engine, valkey):
    sessions = create_sessions(engine)
    await asyncio.to_thread(valkey.kill)
    held = await accept_letter(sessions)

    async with sessions() as session:
        await session.execute(text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": held})
        async with running(settings) as emitted:
            await wait_for_event(emitted, "redis.lost")
            free = await accept_letter(sessions)
            await finished(sessions, [free])
            state = await session.scalar(
                text("SELECT state FROM jobs WHERE id = :id"), {"id": held}
            )
            assert state == "queued"
            await session.commit()
            await finished(sessions, [held])


async def test_a_worker_starts_without_redis(settings, engine, valkey):
    sessions = create_sessions(engine)
    await asyncio.to_thread(valkey.kill)
    job_id = await accept_letter(sessions, "without Redis")

    async with running(settings):
        await finished(sessions, [job_id])

    assert await letters_at(sessions, "without Redis") == [job_id]


async def test_an_abort_cancels_the_job_in_postgresql(settings, engine, valkey):
    from arq import create_pool
    from arq.connections import RedisSettings

    from worker.execution import serializer as wire

    sessions = create_sessions(engine)
    pool = await create_pool(
        RedisSettings.from_dsn(valkey.url),
        job_serializer=wire.serialize,
        job_deserializer=wire.deserialize,
    )
    job_id = await accept_letter(sessions, "aborted")
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
