"""Rings follow commits, whatever savepoints, rollbacks and borrowed connections do in between.

`jobs._client.after_commit` and `jobs._client.notifier`, through the client.
"""

import asyncio
import uuid

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from jobs import Client
from tests.letters import a_letter


@pytest.fixture
async def client(redis):
    async with Client(redis) as made:
        yield made


async def rung(client, redis):
    await client.aclose()
    return {member.decode() for member in await redis.zrange("arq:queue", 0, -1)}


async def test_a_job_of_a_released_savepoint_is_rung_with_the_commit(client, sessions, redis):
    async with sessions() as session, session.begin():
        async with session.begin_nested():
            job = await client.enqueue(a_letter(), session=session)
        assert await rung(client, redis) == set()

    assert await rung(client, redis) == {str(job.id)}


async def test_a_job_of_a_rolled_back_savepoint_is_never_rung(client, sessions, redis):
    async with sessions() as session, session.begin():
        kept = await client.enqueue(a_letter(), session=session)
        savepoint = await session.begin_nested()
        await client.enqueue(a_letter(), session=session)
        await savepoint.rollback()

    assert await rung(client, redis) == {str(kept.id)}


async def test_a_released_savepoint_inside_a_rolled_back_one_is_never_rung(client, sessions, redis):
    async with sessions() as session, session.begin():
        outer = await session.begin_nested()
        async with session.begin_nested():
            await client.enqueue(a_letter(), session=session)
        await outer.rollback()
        kept = await client.enqueue(a_letter(), session=session)

    assert await rung(client, redis) == {str(kept.id)}


async def test_a_session_closed_without_a_commit_rings_nothing_later(client, sessions, redis):
    async with sessions() as session:
        await client.enqueue(a_letter(), session=session)
        await session.close()
        kept = await client.enqueue(a_letter(), session=session)
        await session.commit()

    assert await rung(client, redis) == {str(kept.id)}


async def test_a_rolled_back_transaction_rings_nothing_with_the_next(client, sessions, redis):
    async with sessions() as session:
        await client.enqueue(a_letter(), session=session)
        await session.rollback()
        kept = await client.enqueue(a_letter(), session=session)
        await session.commit()
        again = await client.enqueue(a_letter(), session=session)
        await session.commit()

    assert await rung(client, redis) == {str(kept.id), str(again.id)}


async def test_a_borrowed_connection_that_is_not_committed_is_left_to_the_relay(
    client, engine, redis
):
    async with engine.connect() as connection, connection.begin() as outer:
        async with AsyncSession(connection) as session:
            await client.enqueue(a_letter(), session=session)
            await session.commit()
        await outer.rollback()

    assert await rung(client, redis) == set()


@pytest.fixture
def sync_engine(database_url):
    made = create_engine(make_url(database_url).set(drivername="postgresql+psycopg"))
    yield made
    made.dispose()


async def test_a_synchronous_session_in_async_code(client, sync_engine, redis):
    with Session(sync_engine) as session, session.begin():
        job = await client.enqueue(a_letter(), session=session, key=uuid.uuid4().hex)

    assert job.created
    assert await rung(client, redis) == {str(job.id)}


async def test_a_synchronous_session_in_a_thread_rings_on_the_clients_loop(
    client, sync_engine, sessions, redis
):
    async with sessions() as session:  # the client has been used here, so it knows its loop
        await client.enqueue(a_letter(), session=session)

    def work():
        with Session(sync_engine) as session, session.begin():
            return client.enqueue_sync(a_letter(), session=session)

    job = await asyncio.to_thread(work)
    await asyncio.sleep(0)  # the ring was handed over with call_soon_threadsafe

    assert await rung(client, redis) == {str(job.id)}


def test_a_synchronous_session_without_any_event_loop_is_left_to_the_relay(
    sync_engine,
):
    client = Client()
    with Session(sync_engine) as session, session.begin():
        job = client.enqueue_sync(a_letter(), session=session)
    with Session(sync_engine) as session:
        state = session.scalar(text("SELECT state FROM jobs WHERE id = :id"), {"id": job.id})

    assert state == "queued"
