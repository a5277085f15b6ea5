"""Stock arq on both ends: its client enqueues, its loop runs, ours is nowhere."""

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, get_kwargs
from sqlalchemy import text

from jobs._wire import job_id_of
from tests.letters import SAMPLES, a_letter, file, letters_at
from worker.app import Options
from worker.execution import serializer as wire
from worker.settings import Settings

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def settings(letters, database_url, redis_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    return Settings()


@pytest.fixture
async def client(redis, redis_url, sessions):
    # The relay would rightly send again what an earlier test left waiting.
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs WHERE state = 'queued'"))
    pool = await create_pool(
        RedisSettings.from_dsn(redis_url),
        job_serializer=wire.serialize,
        job_deserializer=wire.deserialize,
    )
    yield pool
    await pool.aclose()


async def work_off(settings, **changes):
    """Run arq's own worker in burst mode until the queue is empty."""
    options: dict[str, Any] = get_kwargs(Options(settings))  # type: ignore[arg-type]  # reads vars
    worker = Worker(
        **{**options, "burst": True, "handle_signals": False, "poll_delay": 0.01} | changes
    )
    try:
        async with asyncio.timeout(60):
            await worker.async_run()
    finally:
        await worker.close()


async def state_of(sessions, redis_id):
    async with sessions() as session:
        return await session.scalar(
            text("SELECT state FROM jobs WHERE id = :id"), {"id": job_id_of(redis_id)}
        )


async def test_a_letter_is_sent_once_however_often_it_is_enqueued(settings, client, sessions):
    address = uuid.uuid4().hex
    job = await client.enqueue_job("send_letter", {"address": address}, _job_id=f"to {address}")
    # The same job under another Redis id: what a client does that lost the answer.
    same = str(job_id_of(job.job_id))
    await client.enqueue_job("send_letter", {"address": address}, _job_id=same)

    await work_off(settings)

    assert await job.result(timeout=5) == {"letter_id": same}
    assert await letters_at(sessions, address) == [uuid.UUID(same)]


async def test_a_letter_that_enqueues_the_next_makes_a_chain(
    settings, client, sessions, monkeypatch
):
    post = file.post

    async def post_and_go_on(ctx, letter):
        await post(ctx, letter)
        if letter.pages > 1:
            await ctx.enqueue(a_letter(letter.pages - 1, letter.address))

    monkeypatch.setattr(file, "post", post_and_go_on)
    address = uuid.uuid4().hex
    await client.enqueue_job("send_letter", {"address": address, "pages": 3})

    async with asyncio.timeout(60):
        while len(await letters_at(sessions, address)) < 3:
            await work_off(settings)

    await work_off(settings)
    assert len(await letters_at(sessions, address)) == 3


async def test_what_no_handler_can_take_ends_in_the_record(settings, client, sessions, redis):
    wrong = await client.enqueue_job("send_letter", {"pages": 1.5})
    many = await client.enqueue_job("send_letter", 1, 2)
    await redis.set("arq:job:raw", b"\x80\x04 not json")
    await redis.zadd("arq:queue", {"raw": 1})

    await work_off(settings)

    for redis_id in (wrong.job_id, many.job_id, "raw"):
        assert await state_of(sessions, redis_id) == "dead"


async def test_an_unknown_kind_is_put_back_and_not_deleted(settings, client, sessions, redis):
    job = await client.enqueue_job("from_the_future", {"x": 1})

    await work_off(settings, max_burst_jobs=1)

    assert await state_of(sessions, job.job_id) == "queued"
    assert await redis.zscore("arq:queue", job.job_id) is not None
    assert await redis.exists(f"arq:job:{job.job_id}")


async def test_the_stock_command_line_works_off_what_a_stock_client_enqueued(
    settings, client, sessions
):
    address = uuid.uuid4().hex
    job = await client.enqueue_job("send_letter", {"address": address})
    environment = {
        **os.environ,
        "DATABASE_URL": str(settings.database_url),
        "REDIS_URL": str(settings.redis_url),
    }
    # As `arq worker.app.WorkerSettings`, but with the letters in the folder of jobs.
    program = f"import jobs; jobs.__path__.append({SAMPLES!r}); from arq.cli import cli; cli()"
    arq = [sys.executable, "-c", program, "worker.app.WorkerSettings"]

    done = await asyncio.to_thread(
        subprocess.run,
        [*arq, "--burst"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    checked = await asyncio.to_thread(
        subprocess.run, [*arq, "--check"], cwd=PROJECT, env=environment, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert await job.result(timeout=5) == {"letter_id": str(job_id_of(job.job_id))}
    assert address not in done.stderr, "arguments are private"
    assert checked.returncode in {0, 1}
