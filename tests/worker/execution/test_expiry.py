"""Expiry: a job that has not begun in time ends as cancelled, without running."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from db.execution import JobRef
from jobs import Job, Policy, Snooze
from tests.letters import SEND_LETTER
from tests.worker.execution.kit import again, letter, recording_executor
from worker.app.schema import terms_of
from worker.execution.delivery import Delivery
from worker.execution.executor import EXPIRED
from worker.execution.outcome import Finished, Later

pytestmark = pytest.mark.usefixtures("letters")

IN_TIME = Policy(expires_after=timedelta(minutes=5))
CANCELLED = Finished("cancelled", {"reason": EXPIRED})
LATE_S = 600.0

ACCEPT = text("""
    SELECT enqueue_job('send_letter', '{"address": "12 High Street"}', NULL,
                       now() + CAST(:delay AS interval))
""")


@pytest.fixture
async def letters_in_time(sessions):
    """An executor; the database takes letters for five minutes."""
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE job_kinds SET expires_after = '5 minutes' WHERE kind = 'send_letter'")
        )
    return recording_executor(sessions)


def job_of(handler=None):
    return Job(SEND_LETTER.payload, handler or SEND_LETTER.handler, IN_TIME)


async def accepted(sessions, *, delay=timedelta()):
    """Accept a letter, and return how it is delivered by its id."""
    async with sessions() as session, session.begin():
        job_id = await session.scalar(ACCEPT, {"delay": delay})
    return Delivery(JobRef(job_id, "send_letter", "null", datetime.now(UTC)), 1, by_id=True)


async def set_row(sessions, delivery, assignment):
    async with sessions() as session, session.begin():
        await session.execute(
            text(f"UPDATE jobs SET {assignment} WHERE id = :id"), {"id": delivery.job.id}
        )


async def row_of(sessions, delivery):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT * FROM jobs WHERE id = :id"), {"id": delivery.job.id}
        )
        return rows.one()


EXPIRED_NOW = "expires_at = clock_timestamp()"


async def test_a_job_expires_from_when_it_could_run(letters_in_time, sessions):
    now, later = await accepted(sessions), await accepted(sessions, delay=timedelta(hours=2))

    for delivery in (now, later):
        row = await row_of(sessions, delivery)
        assert abs(row.expires_at - row.run_at - timedelta(minutes=5)) < timedelta(seconds=1)


async def test_a_job_that_has_not_begun_in_time_is_cancelled_without_running(
    letters_in_time, sessions
):
    delivery = await accepted(sessions)
    await set_row(sessions, delivery, EXPIRED_NOW)

    assert await letters_in_time.run(delivery, job_of()) == CANCELLED
    assert await letters_in_time.sent([delivery.job.id]) == []
    assert (await row_of(sessions, delivery)).result == {"reason": EXPIRED}
    assert letters_in_time.names() == ["job.finished"]


async def test_a_job_in_time_runs(letters_in_time, sessions):
    delivery = await accepted(sessions)

    assert (await letters_in_time.run(delivery, job_of())).state == "completed"


async def test_a_job_that_redis_alone_had_expires_by_its_own_time(letters_in_time, sessions):
    late, in_time = replace(letter(), wait_s=LATE_S), replace(letter(), wait_s=1.0)

    assert await letters_in_time.run(late, job_of()) == CANCELLED
    assert (await letters_in_time.run(in_time, job_of())).state == "completed"
    assert await letters_in_time.sent([late.job.id]) == []
    assert (await row_of(sessions, late)).payload == {"address": "12 High Street", "pages": 1}
    assert (await letters_in_time.run(again(late), job_of())).state == "cancelled"


async def test_where_the_row_says_that_it_is_in_time_the_row_is_right(letters_in_time, sessions):
    delivery = replace(await accepted(sessions), wait_s=LATE_S)

    assert (await letters_in_time.run(delivery, job_of())).state == "completed"


async def test_a_job_that_has_begun_does_not_expire(letters_in_time, sessions):
    async def fail(_ctx, _letter):
        raise ValueError("no")

    async def wait(_ctx, _letter):
        return Snooze(timedelta(0))

    for begin in (fail, wait):
        delivery = await accepted(sessions)
        assert isinstance(await letters_in_time.run(delivery, job_of(begin)), Later)
        assert (await row_of(sessions, delivery)).expires_at is None
        late = replace(again(delivery), wait_s=LATE_S)
        assert (await letters_in_time.run(late, job_of())).state == "completed"


async def test_a_job_under_which_a_process_died_has_begun(letters_in_time, sessions):
    by_id = await accepted(sessions)
    await set_row(sessions, by_id, EXPIRED_NOW)
    by_redis = replace(letter(), wait_s=LATE_S)

    for delivery in (by_id, by_redis):
        crashed = replace(delivery, crashes=1)
        assert (await letters_in_time.run(crashed, job_of())).state == "completed"


async def test_a_job_that_waits_for_a_newer_worker_has_not_begun(letters_in_time, sessions):
    delivery = await accepted(sessions)

    await set_row(sessions, delivery, "kind = 'from_the_future'")
    await letters_in_time.run(delivery, None)

    assert (await row_of(sessions, delivery)).blocked_by == "newer_worker"
    await set_row(sessions, delivery, f"kind = 'send_letter', {EXPIRED_NOW}")
    assert await letters_in_time.run(again(delivery), job_of()) == CANCELLED


async def test_a_job_that_is_claimed_from_its_row_expires_there(letters_in_time, sessions):
    """Without Redis: the lease counts itself as a process that died, until it ends."""
    delivery = await accepted(sessions)
    await set_row(sessions, delivery, f"{EXPIRED_NOW}, leased_by = 'me', crashes = 1")

    assert await letters_in_time.run(delivery, job_of()) == CANCELLED


async def test_a_try_in_place_after_the_time_is_over_is_still_the_same_run(
    letters_in_time, sessions
):
    delivery, tries = await accepted(sessions), []

    async def conflict_once(ctx, _letter):
        tries.append(1)
        if len(tries) == 1:
            await set_row(sessions, delivery, EXPIRED_NOW)
            await ctx.store.session.execute(
                text("DO $$ BEGIN RAISE 'conflict' USING ERRCODE = '40001'; END $$")
            )

    assert await letters_in_time.run(delivery, job_of(conflict_once)) == Finished("completed", None)


def test_nothing_can_expire_before_it_begins():
    with pytest.raises(ValueError, match="expires_after"):
        Policy(expires_after=timedelta(0))


def test_the_database_is_told_when_jobs_of_a_kind_expire():
    assert terms_of(job_of()).expires_after == IN_TIME.expires_after
