"""A caller's clock may be wrong: what is due now, or after a delay, is counted by the servers."""

import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from jobs import Client, InvalidTimeError, _request
from jobs._wire import QueuedJob, abort, put
from tests.letters import a_letter
from tests.worker.running import running_worker

HOUR = timedelta(hours=1)
MINUTE_MS = 60_000
REAL_TIME = time.time

OFF = pytest.mark.parametrize("off", [HOUR, -HOUR, timedelta(days=30)], ids=str)


@pytest.fixture
def shift(monkeypatch):
    """Set the caller's clock wrong; the servers, which run apart, keep theirs."""

    def by(off):
        class Shifted(datetime):
            @classmethod
            def now(cls, tz=None):
                return datetime.now(tz) + off

        monkeypatch.setattr(_request, "datetime", Shifted)
        monkeypatch.setattr(time, "time", lambda: REAL_TIME() + off.total_seconds())
        real_ns = time.time_ns
        monkeypatch.setattr(
            time, "time_ns", lambda: real_ns() + int(off.total_seconds()) * 1_000_000_000
        )

    return by


@pytest.fixture
async def redis_only(letters, redis):
    async with Client(redis) as made:
        yield made


@pytest.fixture
async def client(letters, redis, sessions):
    async with Client(redis, sessions=sessions) as made:
        yield made


def is_near(ms, expected_ms):
    return abs(ms - expected_ms) < MINUTE_MS


async def due_ms(redis, job):
    return await redis.zscore("arq:queue", job.redis_id)


async def run_at_of(sessions, job):
    async with sessions() as session:
        return await session.scalar(text("SELECT run_at FROM jobs WHERE id = :id"), {"id": job.id})


@OFF
async def test_through_redis_a_job_is_due_by_the_servers_clock(redis_only, redis, shift, off):
    now_ms = REAL_TIME() * 1000
    shift(off)
    at_once = await redis_only.enqueue(a_letter())
    later = await redis_only.enqueue(a_letter(), delay=HOUR)
    body = json.loads(await redis.get(f"arq:job:{at_once.redis_id}"))

    assert is_near(await due_ms(redis, at_once), now_ms)
    assert is_near(await due_ms(redis, later), now_ms + 60 * MINUTE_MS)
    assert is_near(body["et"], now_ms)
    assert [await at_once.status(), await later.status()] == ["queued", "scheduled"]


@OFF
async def test_through_postgresql_a_job_is_due_by_the_servers_clock(
    client, redis, sessions, shift, off
):
    now = datetime.now(UTC)
    shift(off)
    at_once = await client.enqueue(a_letter())
    later = await client.enqueue(a_letter(), delay=HOUR)
    await client.aclose()
    due_later = await run_at_of(sessions, later)

    assert abs(due_later - now - HOUR) < timedelta(minutes=1)
    assert is_near(await due_ms(redis, at_once), now.timestamp() * 1000)
    assert await due_ms(redis, later) == round(due_later.timestamp() * 1000)


async def test_a_job_starts_at_once_however_far_ahead_its_callers_clock_is(
    redis_only, redis_url, database_url, shift
):
    async with running_worker(database_url, redis_url):
        shift(HOUR)
        job = await redis_only.enqueue(a_letter(address=uuid.uuid4().hex))
        await job.result(timeout=20)


async def test_an_abort_is_of_the_servers_now(redis, shift):
    now_ms = REAL_TIME() * 1000
    shift(HOUR)
    await abort(redis, ["a"])

    assert is_near(await redis.zscore("arq:abort", "a"), now_ms)


async def test_a_body_is_kept_until_long_after_its_delay(redis):
    await put(redis, [QueuedJob("a", "f", delay_ms=3_600_000)])

    assert await redis.pttl("arq:job:a") > 7 * 24 * 3_600_000 + 3_500_000


async def test_a_delay_that_was_over_before_it_began_is_now(redis_only, redis):
    job = await redis_only.enqueue(a_letter(), delay=-HOUR)

    assert is_near(await due_ms(redis, job), REAL_TIME() * 1000 - 60 * MINUTE_MS)
    assert await job.status() == "queued"


@pytest.mark.parametrize("delay", [timedelta.max, timedelta.min, timedelta(days=-100 * 365)])
async def test_a_delay_that_leads_nowhere_is_refused(client, redis_only, delay):
    for one in (client, redis_only):
        with pytest.raises(InvalidTimeError):
            await one.enqueue(a_letter(), delay=delay)
