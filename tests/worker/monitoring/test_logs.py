"""Nothing that a payload holds reaches a log, whatever goes wrong with the job."""

import asyncio
import io
import json
import logging
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, get_kwargs
from sqlalchemy import text

from tests.letters import file
from tests.worker.running import running_worker
from worker.app import Options
from worker.execution import serializer as wire
from worker.monitoring import logs
from worker.monitoring.events import EVENTS
from worker.settings import Settings

ADDRESS = "Wilhelmina-Quux, quux@example.com"
SECRETS = ("wilhelmina", "quux", "example.com", "swordfish")
WAIT_S = 30


def payload_of(**changes):
    return {"address": ADDRESS} | changes


async def quoting(_ctx, letter):
    raise RuntimeError(f"cannot send to {letter.address}")


async def violating(ctx, letter):
    """Break a rule of the table: PostgreSQL's DETAIL quotes the row."""
    connection = await ctx.store.session.connection()
    await connection.exec_driver_sql(file.INSERT, (ctx.job_id, letter.address, 99))


async def misusing(ctx, letter):
    """Send a statement that PostgreSQL quotes back."""
    await ctx.store.session.execute(text(f"SELECT 1 FROM \"{letter.address}\" WHERE '1' = 1"))


FAILURES = {
    "a handler that quotes": (quoting, payload_of(), {}),
    "a violated constraint": (violating, payload_of(), {}),
    "a statement that is wrong": (misusing, payload_of(), {}),
    "an address that is none": (None, payload_of(address="swordfish, nowhere"), {}),
    "a field too many": (None, payload_of(password="swordfish"), {}),
    "a field of another type": (None, payload_of(pages="swordfish"), {}),
    "an argument by name": (None, payload_of(), {"password": "swordfish"}),
    "a payload that is too large": (None, payload_of(address="swordfish" * 20_000), {}),
    "a character that jsonb refuses": (None, payload_of(address="quux\x00"), {}),
}


@pytest.fixture
async def client(letters, redis, redis_url, sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    pool = await create_pool(
        RedisSettings.from_dsn(redis_url),
        job_serializer=wire.serialize,
        job_deserializer=wire.deserialize,
    )
    yield pool
    await pool.aclose()


@pytest.fixture
def printed(monkeypatch):
    """What our lines go to. Never closed: a logger keeps the stream that it began with."""
    stream = io.StringIO()
    # pytest puts streams of its own in place for each phase of a test, so the module gets ours.
    monkeypatch.setattr(logs, "sys", SimpleNamespace(stderr=stream))
    return stream


@pytest.fixture
def logged(printed, caplog):
    """Return everything that was logged so far, by us or by anybody."""
    caplog.set_level(logging.DEBUG, logger="arq.worker")
    caplog.set_level(logging.INFO)
    return lambda: printed.getvalue() + caplog.text


async def settled(sessions, count):
    """Wait until every job has ended, or has failed at least once."""
    query = text(
        "SELECT count(*) FROM jobs WHERE state <> 'queued' OR jsonb_array_length(errors) > 0"
    )
    async with asyncio.timeout(WAIT_S):
        while True:
            async with sessions() as session:
                if await session.scalar(query) >= count:
                    return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(("post", "payload", "named"), FAILURES.values(), ids=list(FAILURES))
async def test_a_failing_job_leaves_nothing_private_in_our_loops_logs(
    client, sessions, database_url, redis_url, logged, monkeypatch, post, payload, named
):
    if post is not None:
        monkeypatch.setattr(file, "post", post)
    async with running_worker(database_url, redis_url):
        await client.enqueue_job("send_letter", payload, **named)
        await settled(sessions, 1)

    text_logged = logged()
    assert "send_letter" in text_logged
    assert '"event":"worker.started"' in text_logged
    assert [secret for secret in SECRETS if secret in text_logged.lower()] == []


@pytest.mark.filterwarnings("ignore:Unclosed client session")  # arq's loop, cut within a pipeline
async def test_nor_in_the_logs_of_arqs_own_loop(
    client, sessions, database_url, redis_url, logged, monkeypatch
):
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setattr(file, "post", quoting)
    for _, payload, named in FAILURES.values():
        await client.enqueue_job("send_letter", payload, **named)
    await client.enqueue_job("send_lettr", payload_of())
    options: dict[str, Any] = get_kwargs(Options(Settings()))  # type: ignore[arg-type]  # reads vars
    worker = Worker(**options | {"handle_signals": False, "poll_delay": 0.01})
    running = asyncio.create_task(worker.async_run())
    try:
        await settled(sessions, len(FAILURES) + 1)
    finally:
        # One after the other: arq's close cuts short whatever still uses the pool that it closes,
        # and then leaves connections open.
        running.cancel()
        await asyncio.wait({running, *worker.tasks.values()}, timeout=WAIT_S)
        await worker.close()

    text_logged = logged()
    assert "send_letter" in text_logged
    assert [secret for secret in SECRETS if secret in text_logged.lower()] == []


async def test_a_line_is_one_event_of_the_table_in_json(
    client, sessions, database_url, redis_url, printed
):
    async with running_worker(database_url, redis_url):
        await client.enqueue_job("send_letter", payload_of())
        await settled(sessions, 1)

    lines = [json.loads(line) for line in printed.getvalue().splitlines() if line.startswith("{")]
    [finished] = [line for line in lines if line["event"] == "job.finished"]
    assert {line["event"] for line in lines} <= set(EVENTS)
    assert set(finished) == {*EVENTS["job.finished"].fields, "event", "level", "at"}
    assert finished["state"] == "completed"


def test_what_a_library_warns_of_is_a_line_in_json_too():
    error = ConnectionResetError("gone")
    cause = (type(error), error, None)
    place = ("sqlalchemy.pool", logging.WARNING, "base.py", 1)
    record = logging.LogRecord(*place, "closing %s", ("it",), cause)

    line = json.loads(logs.JsonLines().format(record))

    assert (line["event"], line["level"]) == ("closing it", "warning")
    assert line["logger"] == "sqlalchemy.pool"
    assert line["traceback"].endswith("ConnectionResetError: gone")
    assert datetime.fromisoformat(line["at"]).tzinfo is not None
