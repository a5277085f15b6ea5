"""Continue: one job as many short transactions, each of which takes effect once."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy import text

from db.execution import JobRef
from jobs import Continue, Job, Payload, Policy, Rejected, Result, Retry
from tests.letters import a_letter
from tests.worker.execution.kit import again, recording_executor
from worker.execution.delivery import Delivery, with_payload
from worker.execution.outcome import CURSOR_BYTES_MAX, Finished, Later
from worker.execution.progress import ProgressBoard

pytestmark = pytest.mark.usefixtures("letters")

COUNTED = """CREATE TABLE IF NOT EXISTS counted (job_id uuid, number int)"""
AT_ONCE = Later(timedelta())


class Count(Payload):
    """Count to a number."""

    kind: ClassVar[str] = "count"
    to: int = 3


class Counted(Result):
    """How far."""

    to: int


async def count(ctx, payload):
    """Note one number in each slice."""
    number = (ctx.cursor or {"next": 1})["next"]
    await note(ctx, number)
    return Counted(to=number) if number == payload.to else Continue({"next": number + 1})


async def note(ctx, number):
    await ctx.store.session.execute(
        text("INSERT INTO counted VALUES (:id, :number)"), {"id": ctx.job_id, "number": number}
    )


def job_of(handler=count, **policy):
    return Job(payload=Count, handler=handler, policy=Policy(**policy))


def a_count(**payload):
    job = JobRef(uuid.uuid4(), "count", "null", datetime.now(UTC))
    return with_payload(Delivery(job, 1), payload)


@pytest.fixture
async def counts(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text(COUNTED))
    return recording_executor(sessions)


async def counted(sessions, delivery):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT number FROM counted WHERE job_id = :id ORDER BY number"),
            {"id": delivery.job.id},
        )
        return list(rows.scalars())


async def row_of(sessions, delivery):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT * FROM jobs WHERE id = :id"), {"id": delivery.job.id}
        )
        return rows.one()


async def test_each_slice_commits_what_it_wrote_and_the_next_begins_at_its_cursor(counts, sessions):
    delivery = a_count(to=3)

    assert await counts.run(delivery, job_of()) == AT_ONCE
    row = await row_of(sessions, delivery)
    assert (row.state, row.slices, row.cursor) == ("queued", 1, {"next": 2})
    assert await counted(sessions, delivery) == [1]

    assert await counts.run(again(delivery), job_of()) == AT_ONCE
    assert await counts.run(again(delivery), job_of()) == Finished("completed", {"to": 3})
    assert await counted(sessions, delivery) == [1, 2, 3]
    assert counts.names() == ["job.continued", "job.continued", "job.finished"]


async def test_a_delivery_that_knows_nothing_of_the_slices_goes_on_from_the_row(counts, sessions):
    """As after a flush of Redis: the first delivery of a job that came with its payload."""
    delivery = a_count(to=2)
    await counts.run(delivery, job_of())

    assert await counts.run(delivery, job_of()) == Finished("completed", {"to": 2})
    assert await counted(sessions, delivery) == [1, 2]


async def test_a_slice_that_runs_on_several_workers_at_once_takes_effect_once(counts, sessions):
    delivery = a_count(to=6)
    met = asyncio.Barrier(2)

    async def count_together(ctx, payload):
        answer = await count(ctx, payload)
        if ctx.cursor is None:
            await met.wait()
        return answer

    job = job_of(count_together)
    await asyncio.gather(counts.run(delivery, job), counts.run(delivery, job))
    for _ in range(6):
        await asyncio.gather(*(counts.run(again(delivery), job) for _ in range(3)))

    assert await counted(sessions, delivery) == [1, 2, 3, 4, 5, 6]
    assert (await row_of(sessions, delivery)).state == "completed"


async def test_a_slice_that_fails_leaves_nothing_and_begins_again(counts, sessions):
    delivery = a_count(to=2)
    failures = [ValueError("no"), ValueError("no")]

    async def stumble(ctx, payload):
        answer = await count(ctx, payload)
        if ctx.cursor and failures:
            raise failures.pop()
        return answer

    for _ in range(3):
        await counts.run(again(delivery), job_of(stumble))
    assert await counted(sessions, delivery) == [1]
    assert await counts.run(again(delivery), job_of(stumble)) == Finished("completed", {"to": 2})
    assert await counted(sessions, delivery) == [1, 2]


async def test_attempts_are_counted_for_each_slice_anew(counts, sessions):
    delivery, tries = a_count(to=4), {}

    async def fail_once_in_each(ctx, payload):
        tries[ctx.slices] = tries.get(ctx.slices, 0) + 1
        if tries[ctx.slices] == 1:
            raise ValueError("no")
        return await count(ctx, payload)

    job = job_of(fail_once_in_each, retry=Retry(attempts_max=2))
    for _ in range(8):
        await counts.run(again(delivery), job)

    row = await row_of(sessions, delivery)
    assert (row.state, row.slices) == ("completed", 3)
    assert await counted(sessions, delivery) == [1, 2, 3, 4]


async def test_a_failure_of_a_slice_that_is_over_is_not_counted(counts, sessions):
    """Another worker ended the slice while this one was about to fail in it."""
    delivery = a_count(to=2)

    async def be_overtaken(ctx, payload):
        if ctx.cursor is None:
            await counts.run(delivery, job_of())
            raise ValueError("too late")
        return await count(ctx, payload)

    outcome = await counts.run(delivery, job_of(be_overtaken))

    assert outcome == Finished("completed", {"to": 2})
    assert await counted(sessions, delivery) == [1, 2]
    assert (await row_of(sessions, delivery)).errors == []


async def test_a_rejection_takes_back_its_own_slice_only(counts, sessions):
    delivery = a_count(to=9)

    async def refuse_the_second(ctx, payload):
        answer = await count(ctx, payload)
        return Rejected("enough") if ctx.cursor else answer

    await counts.run(delivery, job_of(refuse_the_second))
    outcome = await counts.run(again(delivery), job_of(refuse_the_second))

    assert outcome.state == "rejected"
    assert await counted(sessions, delivery) == [1]


async def test_a_job_that_is_cancelled_between_two_slices_stops_there(counts, sessions):
    delivery = a_count(to=9)
    await counts.run(delivery, job_of())

    await counts.executor.cancel(delivery, "enough")

    assert (await counts.run(again(delivery), job_of())).state == "cancelled"
    assert await counted(sessions, delivery) == [1]


async def test_each_slice_enqueues_follow_ups_of_its_own(counts, sessions):
    delivery = a_count(to=3)

    async def enqueue(ctx, payload):
        await ctx.enqueue(a_letter())
        return await count(ctx, payload)

    for _ in range(5):
        await counts.run(again(delivery), job_of(enqueue))

    async with sessions() as session:
        children = await session.scalar(
            text("SELECT count(*) FROM jobs WHERE parent_id = :id"), {"id": delivery.job.id}
        )
    assert children == 3


async def test_the_progress_that_was_shown_last_is_kept_with_the_slice(sessions, counts, redis):
    recording = recording_executor(sessions, progress_of=ProgressBoard(redis).of)
    delivery = a_count(to=2)

    async def show(ctx, payload):
        ctx.progress(1, 2, "counting")
        return await count(ctx, payload)

    await recording.run(delivery, job_of(show))

    row = await row_of(sessions, delivery)
    assert row.progress == {"done": 1, "total": 2, "note": "counting"}


async def test_a_delay_puts_the_next_slice_off(counts, sessions):
    delivery = a_count()

    async def wait(_ctx, _payload):
        return Continue(None, delay=timedelta(hours=1))

    assert await counts.run(delivery, job_of(wait)) == Later(timedelta(hours=1))
    row = await row_of(sessions, delivery)
    assert row.run_at - row.enqueued_at > timedelta(minutes=59)


@pytest.mark.parametrize(
    "cursor", [object(), "x" * CURSOR_BYTES_MAX, "\0"], ids=["no JSON", "large", "NUL"]
)
async def test_a_cursor_that_cannot_be_kept_is_the_failure_of_the_job(counts, sessions, cursor):
    delivery = a_count()

    async def continue_from(ctx, _payload):
        await note(ctx, 1)
        return Continue(cursor)

    outcome = await counts.run(delivery, job_of(continue_from, retry=Retry(attempts_max=1)))

    assert outcome.state == "dead"
    assert outcome.result["error"] == "InvalidCursorError"
    assert await counted(sessions, delivery) == []


async def test_a_worker_that_died_in_a_slice_costs_that_slice(counts, sessions):
    delivery = a_count(to=2)
    await counts.run(delivery, job_of())

    crashed = replace(again(delivery), crashes=1)

    assert await counts.run(crashed, job_of()) == Finished("completed", {"to": 2})
    assert await counted(sessions, delivery) == [1, 2]
