"""Identity is the id: which payload counts, and when another one is a conflict."""

import uuid
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import text

from jobs import Retry
from tests.worker.execution.test_executor import (
    Made,
    Toy,
    delivery_of,
    job_of,
    make,
    toys,
)
from worker.execution.delivery import Delivery
from worker.execution.outcome import Conflict, Finished, Later

__all__ = ["toys"]

NUMBERS = ["1.5", "1.50", "2.0", "1e2", "0.1000000000000000055", "12345678901234567890.5"]


class Measured(Toy):
    """A toy, and its size."""

    ratio: float


def measured(handler=None):
    async def measure(_ctx, toy):
        return Made(name=f"{toy.name} {toy.ratio}")

    return replace(job_of(handler or measure), payload=Measured)


def delivered(payload_json, **changes):
    delivery = delivery_of(**changes)
    return replace(delivery, job=replace(delivery.job, payload_json=payload_json))


async def accept(sessions, delivery, payload_json):
    """Insert the row of a job as a client of PostgreSQL does."""
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "INSERT INTO jobs (id, kind, payload) VALUES (:id, 'toy', CAST(:payload AS jsonb))"
            ),
            {"id": delivery.job.id, "payload": payload_json},
        )


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("how", ["by id", "with the body that Python wrote", "again"])
async def test_a_number_that_json_and_jsonb_write_differently_is_the_same_job(
    toys, sessions, number, how
):
    accepted = f'{{"name": "bear", "ratio": {number}}}'
    delivery = delivered(f'{{"name":"bear","ratio":{float(number)!r}}}')
    await accept(sessions, delivery, accepted)
    if how == "by id":
        delivery = Delivery(replace(delivery.job, payload_json="null"), 1, by_id=True)
    if how == "again":
        delivery = replace(delivery, try_number=3)

    first = await toys.executor.run(measured(), delivery)
    second = await toys.executor.run(measured(), delivery)

    assert first == Finished("completed", {"name": f"bear {float(number)}"})
    assert second == replace(first, replayed=True)


async def test_while_a_job_is_queued_its_rows_payload_counts(toys, sessions):
    """Whoever overwrote the body in Redis changes nothing, and the job is not lost."""
    name = uuid.uuid4().hex
    delivery = delivered('{"name":"another"}')
    await accept(sessions, delivery, f'{{"name": "{name}"}}')

    outcome = await toys.executor.run(job_of(make), delivery)

    assert outcome == Finished("completed", {"name": name})
    assert await toys.toys("another") == 0
    assert await toys.toys(name) == 1


async def test_a_failure_of_another_payload_is_not_the_jobs(toys, sessions):
    name = uuid.uuid4().hex
    delivery = delivered('{"name":"another"}')
    await accept(sessions, delivery, f'{{"name": "{name}"}}')

    async def make_only_that(ctx, toy):
        if toy.name != name:
            raise ValueError(toy.name)
        return await make(ctx, toy)

    outcome = await toys.executor.run(job_of(make_only_that, retry=Retry(attempts_max=1)), delivery)

    assert outcome == Finished("completed", {"name": name})


async def test_a_kind_that_the_row_does_not_have_runs_as_the_rows_kind(toys, sessions):
    delivery = delivered('{"name":"bear"}', try_number=1)
    await accept(sessions, delivery, '{"name": "bear"}')
    wrong = replace(delivery, job=replace(delivery.job, kind="from_the_future"))

    outcome = await toys.executor.run(None, wrong)
    stored = await toys.stored(delivery)

    # No toy is registered, so the row waits, as a toy.
    assert isinstance(outcome, Later)
    assert (stored.kind, stored.state) == ("toy", "queued")


async def test_a_final_row_is_a_conflict_only_for_a_payload_that_means_something_else(toys):
    delivery = delivered('{"name":"bear","ratio":100}')
    first = await toys.executor.run(measured(), delivery)
    same = replace(delivery, job=replace(delivery.job, payload_json='{"ratio":1e2,"name":"bear"}'))
    close = replace(
        delivery,
        job=replace(delivery.job, payload_json='{"name":"bear","ratio":100.000000000000000001}'),
    )
    other = replace(delivery, job=replace(delivery.job, payload_json='{"name":"bear","ratio":7}'))

    assert first.state == "completed"
    for again in (same, close, replace(same, try_number=2), replace(close, try_number=2)):
        assert await toys.executor.run(measured(), again) == replace(first, replayed=True)
    for again in (other, replace(other, try_number=2)):
        assert await toys.executor.run(measured(), again) == Conflict()


async def test_a_row_that_changes_all_the_time_sends_the_job_back(toys, sessions):
    delivery = delivered('{"name":"0"}')
    await accept(sessions, delivery, '{"name": "1"}')
    runs = []

    async def change(_ctx, _toy):
        runs.append(1)
        async with sessions() as session, session.begin():
            await session.execute(
                text(
                    "UPDATE jobs SET payload = jsonb_build_object('name', clock_timestamp()) "
                    "WHERE id = :id"
                ),
                {"id": delivery.job.id},
            )
        return Made(name="changed")

    outcome = await toys.executor.run(job_of(change, timeout=timedelta(seconds=10)), delivery)

    assert isinstance(outcome, Later)
    assert len(runs) <= 4
