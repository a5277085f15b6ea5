"""Chains of follow-ups through whole workers: by Redis, by the relay, without Redis."""

import asyncio
import uuid

import pytest
from sqlalchemy import text

from jobs._wire import put, queued_job
from tests.letters import a_letter, file, letters_at
from tests.worker.running import running_worker
from worker.dev.servers import ValkeyServer
from worker.execution.outbox import Outbox

DEADLINE_S = 60
LENGTH = 5


@pytest.fixture
async def sessions(sessions, letters):
    """Begin with no jobs; the workers know letters."""
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    return sessions


@pytest.fixture
def chain(monkeypatch):
    """Let each letter of several pages enqueue one with a page less."""
    post = file.post

    async def post_and_go_on(ctx, letter):
        await post(ctx, letter)
        if letter.pages > 1:
            await ctx.enqueue(a_letter(pages=letter.pages - 1, address=letter.address))

    monkeypatch.setattr(file, "post", post_and_go_on)


async def begin(sessions, redis=None):
    """Accept the first letter of a chain; return the address of them all."""
    address = uuid.uuid4().hex
    payload = f'{{"address": "{address}", "pages": {LENGTH}}}'
    async with sessions() as session, session.begin():
        job_id = await session.scalar(
            text("SELECT enqueue_job('send_letter', CAST(:payload AS jsonb))"), {"payload": payload}
        )
    if redis is not None:
        await put(redis, [queued_job(str(job_id), "send_letter", payload, None)])
    return address


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():  # noqa: ASYNC110 - nothing in PostgreSQL or Redis sets an event
            await asyncio.sleep(0.01)


async def all_sent(sessions, address):
    """Wait until every letter of a chain was sent, and return how many were."""

    async def are_sent():
        return len(await letters_at(sessions, address)) >= LENGTH

    await until(are_sent)
    return len(await letters_at(sessions, address))


async def test_each_job_of_a_chain_runs_once(sessions, chain, database_url, redis, redis_url):
    async with running_worker(database_url, redis_url):
        address = await begin(sessions, redis)
        assert await all_sent(sessions, address) == LENGTH


async def test_a_chain_goes_on_by_the_relay_where_nothing_is_sent_after_the_commit(
    sessions, chain, database_url, redis, redis_url, monkeypatch
):
    lost = []
    monkeypatch.setattr(Outbox, "send", lambda _self, jobs: lost.extend(jobs))
    async with running_worker(database_url, redis_url):
        address = await begin(sessions, redis)
        assert await all_sent(sessions, address) == LENGTH
    assert len(lost) == LENGTH - 1


async def test_a_chain_goes_on_without_redis(sessions, chain, database_url, tmp_path):
    with ValkeyServer(tmp_path / "valkey") as valkey:
        url = valkey.url
    async with running_worker(database_url, url):
        address = await begin(sessions)
        assert await all_sent(sessions, address) == LENGTH


async def test_a_job_that_is_delivered_again_after_its_commit_adds_nothing_to_the_chain(
    sessions, chain, database_url, redis, redis_url
):
    async with running_worker(database_url, redis_url):
        address = await begin(sessions, redis)
        await all_sent(sessions, address)
        async with sessions() as session:
            done = (await session.execute(text("SELECT id, payload::text FROM jobs"))).all()
        again = [queued_job(str(job_id), "send_letter", payload, None) for job_id, payload in done]
        await put(redis, again)

        async def is_worked_off():
            return await redis.zcard("arq:queue") == 0

        await until(is_worked_off)
    assert len(await letters_at(sessions, address)) == LENGTH
    async with sessions() as session:
        assert await session.scalar(text("SELECT count(*) FROM jobs")) == LENGTH
