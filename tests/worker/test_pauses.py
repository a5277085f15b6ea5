"""Pauses of a kind and of a queue, on real servers, with and without Redis."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from db.pauses import Pauses
from db.workers import backlog
from jobs._client.client import Client
from tests.letters import CatalogPrinted, LetterSent, PrintCatalog, a_letter
from tests.worker.loop.kit import eventually
from tests.worker.test_queues import DEADLINE_S, REPORTS, hear, press, running, sessions
from worker.app.options import PARTS
from worker.dev.servers import ValkeyServer

__all__ = ["press", "sessions"]


@pytest.fixture
async def pauses(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM pauses"))
    yield sessions
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM pauses"))


async def pause(sessions, what, name, *, until=None):
    async with sessions() as session, session.begin():
        await Pauses(session).begin(what, name, reason="the printer burns", by="ada", until=until)


async def resume(sessions, what, name):
    async with sessions() as session, session.begin():
        assert await Pauses(session).end(what, name)


async def row(sessions, job_id):
    async with sessions() as session:
        found = await session.execute(
            text("SELECT state, blocked_by, attempts, crashes, leased_by FROM jobs WHERE id = :id"),
            {"id": job_id},
        )
        return tuple(found.one())


async def held(sessions, job_id):
    found = await row(sessions, job_id)
    return found[1] == "paused"


async def test_a_paused_kind_begins_no_more_and_goes_on_when_it_is_resumed(
    pauses, redis, redis_url, database_url
):
    async with running(database_url, redis_url) as (worker, heard):
        await pause(pauses, "kind", "send_letter")
        await hear(heard, "pause.began")
        client = Client(redis, sessions=pauses)
        letters = await client.enqueue_many(
            [a_letter(address=f"{n} High Street") for n in range(5)]
        )
        through_redis = await Client(redis).enqueue(a_letter(address="6 High Street"))
        catalog = await client.enqueue(a_letter(address="7 High Street"))
        for job in (*letters, through_redis, catalog):
            await eventually(lambda job=job: held(pauses, job.id))
            assert await row(pauses, job.id) == ("queued", "paused", 0, 0, None)
        # It waits, as far as its caller is told.
        assert await through_redis.status() in ("queued", "scheduled")
        assert not worker.claims.held
        await resume(pauses, "kind", "send_letter")
        for job in (*letters, through_redis):
            assert await job.result(DEADLINE_S) == LetterSent(letter_id=job.id)
        assert (await row(pauses, letters[0].id))[:3] == ("completed", None, 0)


async def test_jobs_of_a_paused_kind_stand_in_nobodys_way(
    pauses, redis, redis_url, database_url, press
):
    press.open.set()
    async with running(database_url, redis_url, queues="default=1,reports=1") as (_, heard):
        await pause(pauses, "kind", "print_catalog")
        await hear(heard, "pause.began")
        client = Client(redis, sessions=pauses)
        await client.enqueue_many([PrintCatalog(pages=n + 1) for n in range(20)])
        letter = await client.enqueue(a_letter())
        assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
        assert press.begun == 0


async def test_a_paused_queue_is_left_alone_and_the_others_go_on(
    pauses, redis, redis_url, database_url, press
):
    press.open.set()
    async with running(database_url, redis_url, queues="default=1,reports=1") as (_, heard):
        await pause(pauses, "queue", "reports")
        await hear(heard, "pause.began")
        client = Client(redis, sessions=pauses)
        catalog = await client.enqueue(PrintCatalog(pages=3))
        letter = await client.enqueue(a_letter())
        assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
        assert await redis.zrange(REPORTS, 0, -1) == [catalog.redis_id.encode()]
        assert press.begun == 0
        await resume(pauses, "queue", "reports")
        assert await catalog.result(DEADLINE_S) == CatalogPrinted(pages=3)


async def test_without_redis_nothing_paused_is_claimed(pauses, database_url, tmp_path, press):
    press.open.set()
    with ValkeyServer(tmp_path / "valkey") as valkey:
        queues = "default=2,reports=1"
        async with running(database_url, valkey.url, queues=queues) as (_, heard):
            await asyncio.to_thread(valkey.kill)
            await hear(heard, "redis.lost")
            await pause(pauses, "queue", "reports")
            await hear(heard, "pause.began")
            silent = Client(None, sessions=pauses)
            catalog = await silent.enqueue(PrintCatalog(pages=1))
            letter = await silent.enqueue(a_letter())
            assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
            assert press.begun == 0
            heard.pop("pause.began")
            await pause(pauses, "kind", "print_catalog")
            await hear(heard, "pause.began")
            await resume(pauses, "queue", "reports")
            await eventually(lambda: held(pauses, catalog.id))
            assert press.begun == 0
            await resume(pauses, "kind", "print_catalog")
            await press.wait_begun(1)


async def test_a_pause_for_a_time_ends_by_itself(pauses, redis, redis_url, database_url):
    async with running(database_url, redis_url) as (_, heard):
        end = datetime.now(UTC) + timedelta(seconds=3)
        await pause(pauses, "kind", "send_letter", until=end)
        await hear(heard, "pause.began")
        letter = await Client(redis, sessions=pauses).enqueue(a_letter())
        assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
        assert datetime.now(UTC) >= end
        assert "pause.ended" in heard


async def test_health_tells_who_paused_what_and_why_and_alerts_leave_it_out(
    pauses, redis, redis_url, database_url
):
    async with running(database_url, redis_url, queues="default=1") as (worker, heard):
        await pause(pauses, "queue", "default")
        await hear(heard, "pause.began")
        await Client(redis, sessions=pauses).enqueue(
            a_letter(), run_at=datetime.now(UTC) - timedelta(hours=1)
        )
        health = worker.ctx[PARTS].health
        state = health.state
        assert state.queues() == {"default": {"slots": 1, "taken": 0, "paused": True}}
        shown = health.metrics.exposition().decode()
        assert 'teller_paused{target="queue:default"} 1.0' in shown
        assert 'teller_queue_slots{queue="default"} 1.0' in shown
        assert 'teller_queue_slots_taken{queue="default"} 0.0' in shown
        assert state.warnings() == ["queue default is paused by ada: the printer burns"]
        async with pauses() as session:
            waiting = await backlog(session)
        assert waiting.oldest_runnable_age_s == 0
        (queue,) = waiting.queues
        assert (queue.queue, queue.runnable, queue.paused) == ("default", 1, True)
        assert queue.oldest_runnable_age_s > 3000
