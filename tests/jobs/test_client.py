"""The typed client against real servers and, where it matters, a real worker.

`jobs._client`: client, request, sql and redis hand jobs over; handle, follower and answers follow
them.
"""

import logging
import sys
import time
import uuid
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import ClassVar

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from pydantic import field_serializer
from redis.asyncio import Redis
from sqlalchemy import text

from jobs import (
    Cancel,
    Client,
    DoorClosedError,
    InvalidKeyError,
    InvalidTimeError,
    JobDeadError,
    JobNotFoundError,
    KeyConflictError,
    Rejected,
    Request,
    ResultTimeoutError,
    UnknownKindError,
)
from jobs._wire import JOB_ID_NAMESPACE
from tests.letters import LetterSent, SendLetter, a_card, a_letter
from tests.worker.running import running_worker
from worker.execution import serializer as wire

HOUR = timedelta(hours=1)
TO_NOBODY = a_letter(address="nowhere")
REFUSED = Rejected("unknown_address", "nobody lives there")


@pytest.fixture
async def client(letters, redis, sessions):
    async with Client(redis, sessions=sessions) as made:
        yield made


@pytest.fixture
async def redis_only(redis):
    async with Client(redis) as made:
        yield made


@pytest.fixture
async def worker(letters, redis, sessions, database_url, redis_url):
    async with sessions() as session, session.begin():
        # The relay would rightly send what an earlier test left waiting.
        await session.execute(text("DELETE FROM jobs WHERE state = 'queued'"))
    async with running_worker(database_url, redis_url) as running:
        yield running


async def row_of(sessions, job):
    async with sessions() as session:
        found = await session.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job.id})
        return found.mappings().one_or_none()


# In the caller's transaction


async def test_a_job_exists_if_and_only_if_the_caller_commits(client, sessions, redis):
    async with sessions() as session:
        rolled_back = await client.enqueue(a_letter(), session=session)
        await session.rollback()
    async with sessions() as session, session.begin():
        committed = await client.enqueue(a_letter(), session=session)
        await session.flush()
        assert await redis.zcard("arq:queue") == 0
    await client.aclose()

    assert await row_of(sessions, rolled_back) is None
    assert (await row_of(sessions, committed))["state"] == "queued"
    assert await redis.zrange("arq:queue", 0, -1) == [str(committed.id).encode()]


async def test_a_ring_carries_the_payload_unless_it_is_personal(client, sessions, redis):
    async with sessions() as session, session.begin():
        plain = await client.enqueue(a_letter(), session=session)
        personal = await client.enqueue(a_card(), session=session)
    await client.aclose()

    assert wire.deserialize(await redis.get(f"arq:job:{plain.id}"))["a"] == [a_letter().to_wire()]
    assert wire.deserialize(await redis.get(f"arq:job:{personal.id}"))["a"] == []


async def test_the_same_key_and_payload_is_the_same_job(client, sessions):
    key = uuid.uuid4().hex
    async with sessions() as session, session.begin():
        first = await client.enqueue(a_letter(), session=session, key=key)
        again = await client.enqueue(a_letter(), session=session, key=key)

    assert first.created
    assert again.duplicate
    assert first.id == again.id


async def test_a_key_conflict_leaves_the_callers_transaction_usable(client, sessions):
    key = uuid.uuid4().hex
    async with sessions() as session, session.begin():
        first = await client.enqueue(a_letter(), session=session, key=key)
        with pytest.raises(KeyConflictError, match=f"{first.id}.*use a new key"):
            await client.enqueue(a_letter(2), session=session, key=key)
        other = await client.enqueue(a_letter(2), session=session)

    assert (await row_of(sessions, other))["payload"]["pages"] == 2


async def test_an_unregistered_kind_is_named_with_what_there_is(client, sessions):
    class Unheard(SendLetter):
        kind = "unheard_of"

    async with sessions() as session, session.begin():
        with pytest.raises(UnknownKindError, match=r"'unheard_of'.*send_letter"):
            await client.enqueue(Unheard(**a_letter().model_dump()), session=session)


async def test_many_jobs_take_one_statement_and_keep_their_order(client, sessions, engine):
    statements = []
    from sqlalchemy import event

    event.listen(
        engine.sync_engine, "before_cursor_execute", lambda *call: statements.append(call[2])
    )
    key = uuid.uuid4().hex
    pages = range(2, 99)
    async with sessions() as session, session.begin():
        handles = await client.enqueue_many(
            [
                *(Request(a_letter(number), delay=HOUR) for number in pages),
                Request(a_letter(), key=key),
                Request(a_letter(), key=key),
            ],
            session=session,
        )

    assert len(statements) == 1
    assert [(await row_of(sessions, h))["payload"]["pages"] for h in handles[:3]] == [2, 3, 4]
    assert [h.created for h in handles[-2:]] == [True, False]


class Counted(SendLetter):
    """A letter that notes how often its fields are written out."""

    written: ClassVar[list[str]] = []

    @field_serializer("address")
    def note(self, value: str) -> str:
        self.written.append(value)
        return value


@pytest.fixture
def counted(monkeypatch):
    """A payload; and the values that were made JSON apart from it, which should never hold it."""
    others = []

    def spy(to_json, value):
        others.append(value)
        return to_json(value)

    for name, module in list(sys.modules.items()):
        if name.startswith("jobs.") and (to_json := getattr(module, "to_json", None)):
            monkeypatch.setattr(module, "to_json", partial(spy, to_json))
    Counted.written.clear()
    return Counted(**a_letter().model_dump()), others


async def test_a_payload_is_serialized_once_for_its_row_and_its_ring(
    client, sessions, redis, counted
):
    payload, others = counted
    async with sessions() as session, session.begin():
        job = await client.enqueue(payload, session=session, key=uuid.uuid4().hex)
    await client.aclose()

    assert Counted.written == ["12 High Street"]
    assert "High Street" not in repr(others)
    assert (await row_of(sessions, job))["payload"]["address"] == "12 High Street"
    sent = wire.deserialize(await redis.get(f"arq:job:{job.id}"))["a"][0]
    assert sent["address"] == "12 High Street"


async def test_a_payload_is_serialized_once_through_redis_also_when_it_is_compared(
    redis_only, counted
):
    payload, others = counted
    await redis_only.enqueue(payload, key="k")
    assert Counted.written == ["12 High Street"]
    again = await redis_only.enqueue(payload, key="k")

    assert again.duplicate
    assert Counted.written == ["12 High Street"] * 2
    assert "High Street" not in repr(others)


async def test_a_lost_ring_reaches_no_caller_and_the_log_says_who_rings(sessions, caplog):
    away = Redis(host="127.0.0.1", port=1)
    async with Client(away, sessions=sessions) as client:
        async with sessions() as session, session.begin():
            job = await client.enqueue(a_card(), session=session)
        with caplog.at_level(logging.WARNING, logger="jobs.client"):
            await client.aclose()
    await away.aclose()

    assert (await row_of(sessions, job))["state"] == "queued"
    assert [record.message for record in caplog.records] == [
        "could not ring redis (ConnectionError): the relay will"
    ]


async def test_without_a_session_a_client_with_sessions_uses_its_own_transaction(client, sessions):
    job = await client.enqueue(a_card(), delay=HOUR)

    row = await row_of(sessions, job)
    assert row["run_at"] - datetime.now(UTC) > timedelta(minutes=59)
    assert await job.status() == "scheduled"


async def test_no_door_at_all_is_said(sessions):
    with pytest.raises(DoorClosedError, match="session="):
        await Client().enqueue(a_letter())


@pytest.mark.parametrize("key", ["", "k" * 201, "nul\x00", "\ud800"])
async def test_a_key_that_no_door_takes_is_refused_at_once(client, redis_only, key):
    for one in (client, redis_only):
        with pytest.raises(InvalidKeyError):
            await one.enqueue(a_letter(), key=key)


@pytest.mark.parametrize(
    "run_at",
    [
        datetime(2030, 1, 1),  # noqa: DTZ001 - that is the point
        datetime(1969, 12, 31, tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
        datetime.max.replace(tzinfo=timezone(-HOUR)),
    ],
)
async def test_a_time_that_no_door_takes_is_refused_at_once(client, run_at):
    with pytest.raises(InvalidTimeError, match="run_at"):
        await client.enqueue(a_letter(), run_at=run_at)


async def test_run_at_and_delay_exclude_each_other(client):
    with pytest.raises(ValueError, match="not both"):
        await client.enqueue(a_letter(), run_at=datetime.now(UTC), delay=HOUR)


# Through Redis alone


async def test_through_redis_the_key_is_the_arq_job_id(redis_only, redis):
    key = uuid.uuid4().hex
    job = await redis_only.enqueue(a_letter(), key=key)
    again = await redis_only.enqueue(a_letter(), key=key)

    assert job.redis_id == f"send_letter:{key}"
    assert job.id == uuid.uuid5(JOB_ID_NAMESPACE, job.redis_id)
    assert (job.created, again.created) == (True, False)
    assert await redis.zcard("arq:queue") == 1


async def test_through_redis_another_payload_under_the_same_key_is_a_conflict(redis_only):
    await redis_only.enqueue(a_letter(), key="k")

    with pytest.raises(KeyConflictError, match="another payload"):
        await redis_only.enqueue(a_letter(2), key="k")


async def test_an_arq_client_reads_what_ours_wrote(redis_only, redis_url):
    job = await redis_only.enqueue(a_letter(), delay=HOUR)
    pool = await create_pool(RedisSettings.from_dsn(redis_url), job_deserializer=wire.deserialize)
    (queued,) = await pool.queued_jobs()
    await pool.aclose()

    assert (queued.job_id, queued.function) == (job.redis_id, "send_letter")
    assert list(queued.args) == [a_letter().to_wire()]
    assert (queued.score or 0) > (time.time() + 3_500) * 1000


# Following a job


async def test_a_result_is_the_kinds_own_model(client, worker):
    job = await client.enqueue(a_letter())

    assert await job.result(timeout=30) == LetterSent(letter_id=job.id)
    assert await job.status() == "completed"


async def test_a_business_no_is_an_answer(client, redis_only, worker):
    for one in (client, redis_only):
        job = await one.enqueue(TO_NOBODY)
        assert await job.result(timeout=30) == REFUSED
        assert await job.status() == "rejected"


async def test_a_dead_job_raises_and_says_where_its_errors_are(redis_only, redis, worker):
    job = await redis_only.enqueue(a_letter(), delay=HOUR)
    body = wire.deserialize(await redis.get(f"arq:job:{job.redis_id}"))
    await redis.set(f"arq:job:{job.redis_id}", wire.serialize({**body, "a": [{"no": "payload"}]}))
    await redis.zadd("arq:queue", {job.redis_id: 1})

    with pytest.raises(JobDeadError, match="jobs show"):
        await job.result(timeout=30)
    assert await job.status() == "dead"


async def test_with_sessions_a_result_outlives_redis(client, redis, worker):
    job = await client.enqueue(TO_NOBODY)
    await job.result(timeout=30)
    await redis.flushdb()

    assert await client.handle(job.id).result(timeout=5) == REFUSED
    assert await client.handle(job.id).status() == "rejected"


async def test_without_redis_a_result_comes_from_postgresql(client, sessions, worker):
    job = await client.enqueue(TO_NOBODY)
    recorded = Client(sessions=sessions).handle(job.id)

    assert await recorded.result(timeout=30) == REFUSED


async def test_no_result_in_time_is_said_and_changes_nothing(client):
    job = await client.enqueue(a_letter(), delay=HOUR)

    with pytest.raises(ResultTimeoutError, match="it goes on"):
        await job.result(timeout=0.05)
    assert await job.status() == "scheduled"


async def test_an_unknown_job_is_not_waited_for(client, redis_only):
    for one in (client, redis_only):
        handle = one.handle(uuid.uuid4())
        with pytest.raises(JobNotFoundError):
            await handle.status()
        with pytest.raises(JobNotFoundError):
            await handle.result(timeout=30)


async def test_cancelling_is_decided_in_postgresql(client, sessions, worker):
    waiting = await client.enqueue(a_letter(), delay=HOUR)
    done = await client.enqueue(a_letter())
    await done.result(timeout=30)

    assert await waiting.cancel("changed my mind")
    assert not await done.cancel()
    assert await waiting.result(timeout=30) == Cancel("changed my mind")
    assert (await row_of(sessions, waiting))["state"] == "cancelled"


async def test_cancelling_through_redis_is_arqs_abort(redis_only, worker):
    job = await redis_only.enqueue(a_letter(), delay=HOUR)

    assert await job.cancel(timeout=30)
    assert isinstance(await job.result(timeout=30), Cancel)


async def test_progress_is_what_the_job_last_said(client, redis):
    job = await client.enqueue(a_letter(), delay=HOUR)
    assert await job.progress() is None
    await redis.set(f"teller:progress:{job.id}", '{"done": 3, "total": 7}')

    progress = await job.progress()
    assert progress is not None
    assert (progress.done, progress.total) == (3, 7)
