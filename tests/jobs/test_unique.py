"""One job of a payload for a time, and the newest payload of a job that waits."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from db.execution import JobRef
from db.store import Store
from jobs import Client, DoorClosedError, KeyConflictError, Policy
from jobs._payload import payload_json
from tests.letters import COPY_LETTER, CopyLetter, WindClock, a_letter
from tests.worker.execution.kit import recording_executor
from worker.execution.delivery import Delivery
from worker.execution.outcome import Later

HOUR = timedelta(hours=1)
pytestmark = pytest.mark.usefixtures("letters")


@pytest.fixture
def client(sessions):
    return Client(sessions=sessions)


@pytest.fixture
def room():
    return WindClock(room=uuid.uuid4().hex)


def a_copy(address, pages):
    return CopyLetter(address=address, pages=pages)


@pytest.fixture
def address():
    return uuid.uuid4().hex


async def change(sessions, job, **columns):
    """Write columns of a job's row as they might have come to be."""
    assignments = ", ".join(f"{name} = :{name}" for name in columns)
    async with sessions() as session, session.begin():
        await session.execute(
            text(f"UPDATE jobs SET {assignments} WHERE id = :id"), {"id": job.id, **columns}
        )


async def row_of(sessions, job):
    async with sessions() as session:
        found = await session.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job.id})
        return found.one()


def delivery_of(job, payload):
    """Return the first delivery of a job with a payload that was sent at some time."""
    ref = JobRef(job.id, payload.kind, payload_json(payload), datetime.now(UTC))
    return Delivery(ref, try_number=1)


# -- Unique for a time ----------------------------------------------------------------------------


async def test_the_same_payload_within_the_window_is_the_same_job(client, room):
    first = await client.enqueue(room)
    again = await client.enqueue(room)
    other = await client.enqueue(WindClock(room="another"))

    assert (first.created, again.created, other.created) == (True, False, True)
    assert again.duplicate
    assert first.id == again.id != other.id


async def test_a_job_that_has_completed_is_still_the_one_of_its_window(client, room, sessions):
    first = await client.enqueue(room)
    await change(sessions, first, state="completed", finished_at=datetime.now(UTC))

    assert (await client.enqueue(room)).id == first.id


@pytest.mark.parametrize("state", ["dead", "cancelled"])
async def test_a_job_that_came_to_nothing_stands_in_nobodys_way(client, room, sessions, state):
    first = await client.enqueue(room)
    await change(sessions, first, state=state, finished_at=datetime.now(UTC))
    second = await client.enqueue(room)

    assert second.created
    assert second.id != first.id
    assert (await client.enqueue(room)).id == second.id


async def test_after_the_window_the_payload_is_a_new_job(client, room, sessions):
    first = await client.enqueue(room)
    await change(sessions, first, enqueued_at=datetime.now(UTC) - HOUR)

    assert (await client.enqueue(room)).created


async def test_a_key_names_a_job_and_then_decides_alone(client, room):
    first = await client.enqueue(room, key=f"a{room.room}")
    second = await client.enqueue(room, key=f"b{room.room}")

    assert first.created
    assert second.created


async def test_many_callers_at_once_make_one_job(client, sessions, room):
    handles = await asyncio.gather(*(client.enqueue(room) for _ in range(16)))

    assert [handle.created for handle in handles].count(True) == 1
    assert len({handle.id for handle in handles}) == 1


async def test_many_unique_payloads_in_one_transaction_take_no_lock_each(client, sessions):
    rooms = [WindClock(room=uuid.uuid4().hex) for _ in range(100)]
    async with sessions() as session, session.begin():
        await client.enqueue_many(rooms, session=session)
        locks = await session.scalar(
            text("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid()")
        )

    assert locks < len(rooms)


async def test_a_transaction_that_rolls_back_leaves_the_payload_free(client, sessions, room):
    async with sessions() as session:
        lost = await client.enqueue(room, session=session)
        await session.rollback()

    found = await client.enqueue(room)
    assert found.created
    assert found.id != lost.id


async def test_the_rule_holds_for_sql_alone(sessions):
    enqueue = text("""SELECT enqueue_job('wind_clock', '{"room": "hall"}')""")
    async with sessions() as session, session.begin():
        first = await session.scalar(enqueue)
        again = await session.scalar(enqueue)

    assert first == again


async def test_through_redis_alone_the_windows_have_fixed_times(redis, room, monkeypatch):
    client = Client(redis)
    at_ten = datetime(2026, 3, 10, 10, 5, tzinfo=UTC).timestamp()
    monkeypatch.setattr("jobs._client.redis.time.time", lambda: at_ten)
    first, again = await client.enqueue(room), await client.enqueue(room)
    monkeypatch.setattr("jobs._client.redis.time.time", lambda: at_ten + 3_600)
    later = await client.enqueue(room)

    assert (first.created, again.created, later.created) == (True, False, True)
    assert first.redis_id == again.redis_id != later.redis_id


# -- The newest payload wins ----------------------------------------------------------------------


async def test_a_job_that_waits_takes_the_newest_payload_and_time(client, sessions, address):
    first = await client.enqueue(a_copy(address, 1), key=address, delay=timedelta(minutes=1))
    second = await client.enqueue(a_copy(address, 2), key=address, delay=timedelta(minutes=5))
    row = await row_of(sessions, first)

    assert second.id == first.id
    assert (second.created, second.replaced, second.duplicate) == (False, True, False)
    assert row.payload == {"address": address, "pages": 2}
    assert timedelta(minutes=4) < row.run_at - row.enqueued_at < timedelta(minutes=6)


async def test_without_a_key_the_same_payload_is_put_off(client, sessions, address):
    first = await client.enqueue(a_copy(address, 1), delay=timedelta(minutes=1))
    second = await client.enqueue(a_copy(address, 1), delay=timedelta(minutes=5))
    row = await row_of(sessions, first)

    assert second.id == first.id
    assert row.run_at - row.enqueued_at > timedelta(minutes=4)


async def test_the_audit_takes_a_replaced_payload_for_the_accepted_one(client, sessions, address):
    await client.enqueue(a_copy(address, 1), key=address)
    await client.enqueue(a_copy(address, 2), key=address)
    async with sessions() as session:
        report = await Store(session).audit.run_in_snapshot()

    assert report.differences == 0


async def test_a_job_is_put_off_until_its_time_is_up_and_no_longer(client, sessions, address):
    first = await client.enqueue(a_copy(address, 1), key=address)
    await client.enqueue(a_copy(address, 2), key=address, delay=timedelta(days=2))
    row = await row_of(sessions, first)

    assert row.run_at - row.enqueued_at == HOUR


async def test_a_job_that_is_over_leaves_its_key_to_a_new_one(client, sessions, address):
    first = await client.enqueue(a_copy(address, 1), key=address)
    await change(sessions, first, state="completed", finished_at=datetime.now(UTC))
    second = await client.enqueue(a_copy(address, 1), key=address)

    assert (second.created, second.replaced) == (True, False)
    assert (await row_of(sessions, first)).key is None
    assert (await row_of(sessions, second)).key == address


async def test_a_job_that_has_gone_on_in_slices_has_begun(client, sessions, address):
    first = await client.enqueue(a_copy(address, 3), key=address)
    await change(sessions, first, slices=1)
    second = await client.enqueue(a_copy(address, 4), key=address)

    assert second.created
    assert (await row_of(sessions, first)).payload["pages"] == 3


async def test_other_kinds_refuse_another_payload_under_a_key(client):
    key = uuid.uuid4().hex
    await client.enqueue(a_letter(1), key=key)

    with pytest.raises(KeyConflictError):
        await client.enqueue(a_letter(2), key=key)


async def test_many_callers_at_once_leave_one_job_with_one_of_their_payloads(
    client, sessions, address
):
    copies = [a_copy(address, pages) for pages in range(1, 17)]
    handles = await asyncio.gather(*(client.enqueue(one, key=address) for one in copies))

    assert [handle.created for handle in handles].count(True) == 1
    assert [handle.replaced for handle in handles].count(True) == 15
    assert len({handle.id for handle in handles}) == 1
    # A field with its default value is not stored: read it as a worker would.
    assert CopyLetter(**(await row_of(sessions, handles[0])).payload) in copies


async def test_a_delivery_with_the_older_payload_runs_the_newer(client, sessions, address):
    first, second = a_copy(address, 1), a_copy(address, 2)
    job = await client.enqueue(first, key=address)
    await client.enqueue(second, key=address)

    await recording_executor(sessions).executor.run(COPY_LETTER, delivery_of(job, first))

    assert await pages_sent(sessions, address) == [2]


async def test_a_delivery_before_the_newer_time_waits_for_it(client, sessions, address):
    payload = a_copy(address, 1)
    job = await client.enqueue(payload, key=address)
    await client.enqueue(payload, key=address, delay=timedelta(minutes=5))

    outcome = await recording_executor(sessions).executor.run(
        COPY_LETTER, delivery_of(job, payload)
    )

    assert isinstance(outcome, Later)
    assert timedelta(minutes=4) < outcome.delay < timedelta(minutes=6)
    assert await pages_sent(sessions, address) == []


async def test_a_payload_that_comes_while_the_older_runs_takes_its_place(client, sessions, address):
    handler_runs, replaced = asyncio.Event(), asyncio.Event()

    async def slow(ctx, request):
        handler_runs.set()
        await replaced.wait()
        await COPY_LETTER.handler(ctx, request)

    first = a_copy(address, 1)
    job = await client.enqueue(first, key=address)
    running = asyncio.create_task(
        recording_executor(sessions).executor.run(
            replace(COPY_LETTER, handler=slow), delivery_of(job, first)
        )
    )
    async with asyncio.timeout(30):
        await handler_runs.wait()
        second = await client.enqueue(a_copy(address, 2), key=address)
        replaced.set()
        await running

    assert second.replaced
    assert second.id == job.id
    assert await pages_sent(sessions, address) == [2]
    assert (await row_of(sessions, job)).state == "completed"


async def test_redis_alone_cannot_replace_and_says_so(redis, address):
    with pytest.raises(DoorClosedError, match="PostgreSQL alone"):
        await Client(redis).enqueue(a_copy(address, 1), key=address)


def test_replace_needs_the_time_that_it_may_put_a_job_off():
    with pytest.raises(ValueError, match="needs unique_for"):
        Policy(replace=True)


@pytest.mark.parametrize("window", [timedelta(), timedelta(days=-1), timedelta(days=9_999)])
def test_a_window_is_a_time_that_can_be_counted(window):
    with pytest.raises(ValueError, match="unique_for is more than 0"):
        Policy(unique_for=window)


async def pages_sent(sessions, address):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT pages FROM samples.letters WHERE address = :address"),
            {"address": address},
        )
        return list(rows.scalars())
