"""A kind's own policy: failures that are final or not its fault, and what follows its death."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy import text

from db.execution import JobRef
from jobs import Job, Payload, Policy, Retry
from tests.letters import a_letter
from tests.worker.execution.kit import again, recording_executor
from worker.execution.delivery import Delivery, with_payload
from worker.execution.outcome import Later
from worker.execution.retry import CONFLICTS_MAX, CRASHES_MAX

pytestmark = pytest.mark.usefixtures("letters")


class Errand(Payload):
    """Something to do."""

    kind: ClassVar[str] = "errand"
    where: str = "the post office"


class NobodyLivesThereError(Exception):
    """No other try would end otherwise."""


class ClosedTodayError(Exception):
    """Not the errand's fault."""


class StillClosedError(ClosedTodayError):
    """Nor is this."""


def failing(error):
    async def fail(_ctx, _errand):
        raise error

    return fail


def job_of(handler, **policy):
    return Job(payload=Errand, handler=handler, policy=Policy(**policy))


def an_errand(raw=None):
    job = JobRef(uuid.uuid4(), "errand", "null", datetime.now(UTC))
    return with_payload(Delivery(job, 1), raw or {})


def write_home(errand, failure):
    """Answer a death with a letter."""
    return a_letter(address=f"{errand.where}: {failure.error}"[:40])


@pytest.fixture
def errands(sessions):
    return recording_executor(sessions)


async def row_of(sessions, delivery):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT * FROM jobs WHERE id = :id"), {"id": delivery.job.id}
        )
        return rows.one()


async def letters_after(sessions, delivery):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT payload->>'address' FROM jobs WHERE parent_id = :id"),
            {"id": delivery.job.id},
        )
        return list(rows.scalars())


async def test_after_a_final_exception_the_job_is_dead_at_once(errands, sessions):
    delivery = an_errand()
    retry = Retry(attempts_max=9, final=(NobodyLivesThereError,))

    outcome = await errands.run(delivery, job_of(failing(NobodyLivesThereError()), retry=retry))

    assert outcome.state == "dead"
    assert (await row_of(sessions, delivery)).attempts == 1


async def test_an_exception_that_is_not_the_jobs_fault_spends_no_attempt_for_long(
    errands, sessions
):
    delivery = an_errand()
    job = job_of(
        failing(StillClosedError()), retry=Retry(attempts_max=1, uncounted=(ClosedTodayError,))
    )

    for _ in range(CONFLICTS_MAX):
        assert isinstance(await errands.run(again(delivery), job), Later)
    row = await row_of(sessions, delivery)
    assert (row.state, row.attempts, row.conflicts) == ("queued", 0, CONFLICTS_MAX)
    assert (await errands.run(again(delivery), job)).state == "dead"


async def test_a_lock_is_put_back_even_where_every_exception_is_final(errands, sessions):
    delivery = an_errand()

    async def meet_a_lock(ctx, _errand):
        await ctx.store.session.execute(
            text("DO $$ BEGIN RAISE 'locked' USING ERRCODE = '55P03'; END $$")
        )

    outcome = await errands.run(delivery, job_of(meet_a_lock, retry=Retry(final=(Exception,))))

    assert isinstance(outcome, Later)
    assert (await row_of(sessions, delivery)).attempts == 0


async def test_the_wait_after_a_failure_follows_the_policy(errands):
    retry = Retry(base=timedelta(minutes=10), cap=timedelta(minutes=15))
    job, delivery = job_of(failing(ValueError("no")), retry=retry), an_errand()

    first = await errands.run(delivery, job)
    second = await errands.run(again(delivery), job)

    assert first == Later(timedelta(minutes=5)), "without jitter, half of it"
    assert second == Later(timedelta(minutes=7.5))


async def test_a_death_is_followed_by_the_job_that_on_dead_returns(sessions):
    sent = []
    errands = recording_executor(sessions, send=sent.extend)
    delivery = an_errand()
    job = job_of(failing(ValueError("no")), retry=Retry(attempts_max=2), on_dead=write_home)

    await errands.run(delivery, job)
    assert await letters_after(sessions, delivery) == []
    await errands.run(again(delivery), job)

    assert await letters_after(sessions, delivery) == ["the post office: ValueError"]
    assert [job.kind for job in sent] == ["send_letter"]


async def test_a_death_by_dying_workers_is_followed_too(errands, sessions):
    delivery = replace(an_errand(), crashes=CRASHES_MAX)

    outcome = await errands.run(delivery, job_of(failing(ValueError()), on_dead=write_home))

    assert outcome.state == "dead"
    assert await letters_after(sessions, delivery) == ["the post office: WorkerDied"]


async def test_a_job_that_is_delivered_again_after_its_death_is_followed_once(errands, sessions):
    delivery = an_errand()
    job = job_of(failing(ValueError("no")), retry=Retry(attempts_max=1), on_dead=write_home)

    for _ in range(3):
        await errands.run(again(delivery), job)

    assert len(await letters_after(sessions, delivery)) == 1


def refuse(_errand, _failure):
    raise RuntimeError("no idea")


def answer_what_is_registered_nowhere(errand, _failure):
    return errand


def answer_what_the_database_refuses(_errand, _failure):
    return a_letter().model_copy(update={"pages": 10_000})


@pytest.mark.parametrize(
    "on_dead", [refuse, answer_what_is_registered_nowhere, answer_what_the_database_refuses]
)
async def test_a_death_is_recorded_whatever_becomes_of_its_follow_up(errands, sessions, on_dead):
    delivery = an_errand()
    job = job_of(failing(ValueError("no")), retry=Retry(attempts_max=1), on_dead=on_dead)

    outcome = await errands.run(delivery, job)

    assert outcome.state == "dead"
    assert (await row_of(sessions, delivery)).state == "dead"
    assert errands.names() == ["job.on_dead_failed", "job.dead"]
    assert await letters_after(sessions, delivery) == []


async def test_a_payload_that_does_not_fit_is_followed_by_nothing(errands, sessions):
    delivery = an_errand({"where": 7})

    outcome = await errands.run(delivery, job_of(failing(ValueError()), on_dead=write_home))

    assert outcome.state == "dead"
    assert errands.names() == ["job.dead"]
    assert await letters_after(sessions, delivery) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts_max": 0},
        {"base": timedelta(0)},
        {"base": timedelta(hours=1), "cap": timedelta(minutes=1)},
    ],
    ids=str,
)
def test_a_policy_that_no_job_can_live_by_is_refused(wrong):
    with pytest.raises(ValueError, match=r"attempts_max|base"):
        Retry(**wrong)
    with pytest.raises(TypeError):
        Retry(final=(int,))  # type: ignore[arg-type]
