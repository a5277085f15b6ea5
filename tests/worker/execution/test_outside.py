"""Effects outside: the handler holds no connection, and its answer is concluded afterwards."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from db.execution import JobRef
from jobs import Continue, Job, Payload, Policy, Rejected, Result
from tests.letters import a_letter
from tests.worker.execution.kit import again, recording_executor
from worker.execution.delivery import Delivery, with_payload
from worker.execution.outcome import Finished, Later

pytestmark = pytest.mark.usefixtures("letters")


class Call(Payload):
    """Call another service."""

    kind: ClassVar[str] = "call"


class Called(Result):
    """What it said."""

    said: str


@pytest.fixture
async def outside(database_url):
    """An executor whose pool has one connection."""
    engine = create_engine(database_url, pool_size=1, application_name="teller-outside")
    yield recording_executor(create_sessions(engine))
    await engine.dispose()


def job_of(handler, **policy):
    return Job(payload=Call, handler=handler, policy=Policy(effects="outside", **policy))


def a_call():
    return with_payload(Delivery(JobRef(uuid.uuid4(), "call", "null", datetime.now(UTC)), 1), {})


async def state_of(sessions, delivery):
    async with sessions() as session:
        return await session.scalar(
            text("SELECT state FROM jobs WHERE id = :id"), {"id": delivery.job.id}
        )


async def test_no_connection_is_held_while_the_handler_runs(outside):
    async def call(_ctx, _payload):
        pool = outside.sessions.kw["bind"].sync_engine.pool
        assert pool.checkedout() == 0
        async with outside.sessions() as session:
            await session.execute(text("SELECT 1"))
        return Called(said="yes")

    assert await outside.run(a_call(), job_of(call)) == Finished("completed", {"said": "yes"})


async def test_every_try_has_the_same_idempotency_key_and_each_slice_its_own(outside):
    keys = []
    delivery = a_call()

    async def call(ctx, _payload):
        keys.append(ctx.idempotency_key)
        if len(keys) == 1:
            raise ConnectionError("no answer")
        return Continue(1) if ctx.cursor is None else Called(said="yes")

    for _ in range(3):
        await outside.run(again(delivery), job_of(call))

    assert keys == [str(delivery.job.id)] * 2 + [f"{delivery.job.id}:1"]


async def test_the_store_is_refused_with_a_reason(outside):
    async def reach_for_it(ctx, _payload):
        await ctx.store.session.execute(text("SELECT 1"))

    outcome = await outside.run(a_call(), job_of(reach_for_it))
    (name, fields) = outside.emitted[-1]

    assert isinstance(outcome, Later)
    assert (name, fields["trouble"]) == ("job.failed", "failure")


async def test_what_it_enqueues_is_concluded_with_its_answer(outside, sessions):
    done, refused = a_call(), a_call()

    async def call(ctx, _payload):
        await ctx.enqueue(a_letter())
        return Called(said="yes") if ctx.job_id == done.job.id else Rejected("no")

    for delivery in (done, refused):
        await outside.run(delivery, job_of(call))

    async with sessions() as session:
        parents = await session.scalars(
            text("SELECT parent_id FROM jobs WHERE parent_id = ANY(:ids)"),
            {"ids": [done.job.id, refused.job.id]},
        )
        assert list(parents) == [done.job.id]


async def test_a_conclusion_that_meets_a_lock_is_repeated_without_another_call(outside, sessions):
    calls = []
    delivery = a_call()
    async with sessions() as session, session.begin():
        await session.execute(
            text("INSERT INTO jobs (id, kind, payload) VALUES (:id, 'call', '{}')"),
            {"id": delivery.job.id},
        )

    async with sessions() as holder:

        async def call(_ctx, _payload):
            calls.append(1)
            await holder.execute(
                text("SELECT 1 FROM jobs WHERE id = :id FOR UPDATE"), {"id": delivery.job.id}
            )
            return Called(said="yes")

        running = outside.run(delivery, job_of(call))
        outcome = await _release_after(running, holder, outside)

    assert outcome == Finished("completed", {"said": "yes"})
    assert len(calls) == 1
    assert await state_of(sessions, delivery) == "completed"


async def _release_after(running, holder, outside):
    """Let go of the row once the first conclusion has failed."""
    task = asyncio.create_task(running)
    async with asyncio.timeout(30):
        while not outside.count("job.run_again"):  # noqa: ASYNC110 - nothing sets an event
            await asyncio.sleep(0.01)
    await holder.rollback()
    return await task


def test_a_snapshot_cannot_have_effects_outside():
    with pytest.raises(ValueError, match="choose"):
        Policy(snapshot=True, effects="outside")


async def test_a_call_that_takes_too_long_fails(outside):
    async def hang(_ctx, _payload):
        await asyncio.Event().wait()

    outcome = await outside.run(a_call(), job_of(hang, timeout=timedelta(milliseconds=20)))

    assert isinstance(outcome, Later)
    assert outside.names() == ["job.failed"]
