"""One delivery, on a real PostgreSQL: what commits, what rolls back, what its row has."""

import asyncio
import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.engine import create_engine, create_sessions
from db.execution import JobRef, Record, Standing
from db.transaction import driver_of
from jobs import Cancel, Job, Payload, Policy, Rejected, Result, Retry, Snooze
from tests.worker.execution.kit import RecordingExecutor, recording_executor
from worker.execution.delivery import Delivery, with_payload
from worker.execution.outcome import Conflict, Finished, Later

TOYS = """
    CREATE TABLE IF NOT EXISTS toys (name text NOT NULL CHECK (name <> 'a secret toy'))
"""


class Base(DeclarativeBase):
    """The tables of these tests."""


class ToyRow(Base):
    """A toy, for a handler that works with objects."""

    __tablename__ = "toys"

    name: Mapped[str] = mapped_column(primary_key=True)


class Toy(Payload):
    """A toy's name."""

    kind: ClassVar[str] = "toy"
    name: str


class Made(Result):
    """What was made."""

    name: str


class ToyExecutor(RecordingExecutor):
    """A recording executor, and the table of toys that its jobs may write."""

    async def toys(self, name):
        async with self.sessions() as session:
            return await session.scalar(
                text("SELECT count(*) FROM toys WHERE name = :name"), {"name": name}
            )

    async def stored(self, delivery):
        async with self.sessions() as session:
            return await Record(session).find(delivery.job)

    async def errors(self, delivery):
        async with self.sessions() as session:
            return await session.scalar(
                text("SELECT errors FROM jobs WHERE id = :id"), {"id": delivery.job.id}
            )


@pytest.fixture
async def toys(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text(TOYS))
    recording = recording_executor(sessions)
    return ToyExecutor(recording.executor, sessions, recording.emitted)


@pytest.fixture
async def unreachable():
    """A recording executor whose database refuses connections."""
    engine = create_engine(
        "postgresql://postgres@127.0.0.1:1/postgres", pool_size=1, application_name="teller-tests"
    )
    yield recording_executor(create_sessions(engine))
    await engine.dispose()


def delivery_of(name="bear", *, job_id=None, try_number=1, **changes):
    job = JobRef(
        id=job_id or uuid.uuid4(),
        kind="toy",
        payload_json="null",
        enqueued_at=datetime.now(UTC),
    )
    delivery = with_payload(Delivery(job, try_number), {"name": name})
    return replace(delivery, **changes)


def job_of(handler, **policy):
    return Job(payload=Toy, handler=handler, policy=Policy(**policy))


async def write(ctx, name):
    await ctx.store.session.execute(text("INSERT INTO toys VALUES (:name)"), {"name": name})


async def make(ctx, toy):
    await write(ctx, toy.name)
    return Made(name=toy.name)


async def test_the_effect_and_the_outcome_commit_together(toys):
    name = uuid.uuid4().hex
    delivery = delivery_of(name)

    outcome = await toys.executor.run(job_of(make), delivery)

    assert outcome == Finished("completed", {"name": name})
    assert await toys.toys(name) == 1
    assert (await toys.stored(delivery)).state == "completed"
    assert toys.names() == ["job.finished"]


@pytest.mark.parametrize("try_number", [1, 2])
async def test_a_job_delivered_twice_takes_effect_once(toys, try_number):
    name = uuid.uuid4().hex
    delivery = delivery_of(name)
    await toys.executor.run(job_of(make), delivery)

    again = await toys.executor.run(job_of(make), replace(delivery, try_number=try_number))

    assert again == Finished("completed", {"name": name}, replayed=True)
    assert await toys.toys(name) == 1
    assert toys.names() == ["job.finished", "job.duplicate"]


async def test_a_job_delivered_many_times_at_once_takes_effect_once(toys):
    name = uuid.uuid4().hex
    delivery = delivery_of(name)

    outcomes = await asyncio.gather(*(toys.executor.run(job_of(make), delivery) for _ in range(10)))

    assert {outcome.state for outcome in outcomes} == {"completed"}
    assert sum(not outcome.replayed for outcome in outcomes) == 1
    assert await toys.toys(name) == 1


async def test_the_same_id_with_another_payload_is_a_conflict_and_does_nothing(toys):
    second_name = uuid.uuid4().hex
    first, second = delivery_of(uuid.uuid4().hex), delivery_of(second_name)
    second = replace(second, job=replace(second.job, id=first.job.id))
    await toys.executor.run(job_of(make), first)

    assert await toys.executor.run(job_of(make), second) == Conflict()
    assert await toys.toys(second_name) == 0


async def test_a_rejection_is_final_and_keeps_nothing_that_was_written(toys):
    name = uuid.uuid4().hex

    async def refuse(ctx, toy):
        await write(ctx, toy.name)
        return Rejected("no_such_toy", "it is sold out")

    delivery = delivery_of(name)
    outcome = await toys.executor.run(job_of(refuse), delivery)
    again = await toys.executor.run(job_of(make), delivery)

    assert outcome == Finished("rejected", {"code": "no_such_toy", "message": "it is sold out"})
    assert again == replace(outcome, replayed=True)
    assert await toys.toys(name) == 0


async def test_a_cancel_by_the_handler_is_final(toys):
    async def give_up(_ctx, _toy):
        return Cancel("nobody wants it")

    outcome = await toys.executor.run(job_of(give_up), delivery_of())

    assert outcome == Finished("cancelled", {"reason": "nobody wants it"})


async def test_a_snooze_keeps_nothing_and_spends_no_attempt(toys):
    name = uuid.uuid4().hex

    async def later(ctx, toy):
        await write(ctx, toy.name)
        return Snooze(timedelta(seconds=30))

    delivery = delivery_of(name)
    outcome = await toys.executor.run(job_of(later), delivery)
    stored = await toys.stored(delivery)

    assert outcome == Later(timedelta(seconds=30))
    assert (stored.state, stored.standing.attempts) == ("queued", 0)
    assert await toys.toys(name) == 0


async def test_a_failure_spends_attempts_until_the_job_is_dead(toys):
    async def fail(_ctx, _toy):
        raise ValueError("a wheel is missing")

    delivery = delivery_of()
    job = job_of(fail, retry=Retry(attempts_max=3))
    outcomes = [
        await toys.executor.run(job, replace(delivery, try_number=number)) for number in (1, 2, 3)
    ]

    assert [type(outcome) for outcome in outcomes] == [Later, Later, Finished]
    assert outcomes[-1].state == "dead"
    errors = await toys.errors(delivery)
    assert [error["try"] for error in errors] == [1, 2, 3]
    assert errors[-1]["message"] == "a wheel is missing"
    assert toys.names() == ["job.failed", "job.failed", "job.dead"]


async def test_a_failure_after_success_is_only_a_duplicate(toys):
    """An exception may mean "already done": the row is read before a failure is written."""
    name = uuid.uuid4().hex
    delivery = delivery_of(name)
    await toys.executor.run(job_of(make), delivery)

    async def fail(_ctx, _toy):
        raise ValueError("there is one already")

    outcome = await toys.executor.run(job_of(fail), delivery)

    assert outcome == Finished("completed", {"name": name}, replayed=True)
    assert await toys.errors(delivery) == []


async def test_a_job_that_runs_too_long_fails_like_any_other(toys):
    async def dawdle(_ctx, _toy):
        await asyncio.Event().wait()

    job = job_of(dawdle, timeout=timedelta(milliseconds=20), retry=Retry(attempts_max=1))
    delivery = delivery_of()
    outcome = await toys.executor.run(job, delivery)

    assert outcome.state == "dead"
    assert (await toys.errors(delivery))[0]["error"] == "JobTimeoutError"


async def test_a_payload_that_does_not_fit_is_dead_at_once_and_kept(toys):
    delivery = with_payload(delivery_of(), {"name": 7, "secret": "hunter2"})

    outcome = await toys.executor.run(job_of(make), delivery)
    stored = await toys.stored(delivery)

    assert outcome.state == "dead"
    assert json.loads(stored.payload_json) == {"name": 7, "secret": "hunter2"}
    assert "hunter2" not in str(await toys.errors(delivery))


async def test_a_payload_that_postgresql_cannot_hold_is_kept_all_the_same(toys):
    delivery = with_payload(delivery_of(), {"name": "a\x00b"})

    outcome = await toys.executor.run(job_of(make), delivery)

    assert outcome.state == "dead"
    kept = json.loads((await toys.stored(delivery)).payload_json)
    assert kept == {"text": '{"name":"a\\u0000b"}'}


async def test_an_escaped_backslash_is_not_a_nul(toys):
    name = uuid.uuid4().hex + "\\u0000"

    outcome = await toys.executor.run(job_of(make), delivery_of(name))

    assert outcome == Finished("completed", {"name": name})


async def test_a_conflict_runs_again_at_once_in_a_new_session(toys):
    name, seen = uuid.uuid4().hex, []

    async def collide(ctx, toy):
        seen.append(ctx.store.session)
        await write(ctx, toy.name)
        if len(seen) < 3:
            await ctx.store.session.execute(text("DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$"))
        return Made(name=toy.name)

    outcome = await toys.executor.run(job_of(collide), delivery_of(name))

    assert outcome.state == "completed"
    assert len({id(session) for session in seen}) == 3
    assert await toys.toys(name) == 1
    assert toys.names() == ["job.run_again", "job.run_again", "job.finished"]
    assert toys.emitted[0][1]["sqlstate"] == "40P01"


@pytest.mark.parametrize("sqlstate", ["40P01", "40001", "55P03"])
async def test_a_conflict_that_does_not_end_goes_back_without_an_attempt(toys, sqlstate):
    async def collide(ctx, _toy):
        await ctx.store.session.execute(text(f"DO $$ BEGIN RAISE SQLSTATE '{sqlstate}'; END $$"))

    delivery = delivery_of()
    outcome = await toys.executor.run(job_of(collide), delivery)

    stored = await toys.stored(delivery)
    assert isinstance(outcome, Later)
    assert (stored.state, stored.standing) == ("queued", Standing(attempts=0, conflicts=1))
    assert toys.names()[-1] == "job.put_back"


async def test_a_backend_that_is_terminated_mid_job_costs_nothing(toys):
    name, tries = uuid.uuid4().hex, []

    async def die_once(ctx, toy):
        tries.append(1)
        await write(ctx, toy.name)
        if len(tries) == 1:
            await ctx.store.session.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
        return Made(name=toy.name)

    outcome = await toys.executor.run(job_of(die_once), delivery_of(name))

    assert outcome.state == "completed"
    assert await toys.toys(name) == 1


async def test_a_backend_that_is_terminated_before_the_fence_costs_nothing(toys, sessions):
    name, tries = uuid.uuid4().hex, []

    async def die_once(ctx, toy):
        tries.append(1)
        await write(ctx, toy.name)
        if len(tries) == 1:
            pid = await ctx.store.session.scalar(text("SELECT pg_backend_pid()"))
            async with sessions() as killer:
                await killer.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
        return Made(name=toy.name)

    outcome = await toys.executor.run(job_of(die_once), delivery_of(name))

    assert outcome.state == "completed"
    assert await toys.toys(name) == 1
    assert toys.emitted[0][1]["trouble"] == "connection"


async def test_a_database_that_refuses_connections_costs_no_attempt(unreachable):
    """With the server down asyncpg lets the socket's own error out."""
    outcome = await unreachable.run(delivery_of(), job_of(make))

    assert isinstance(outcome, Later)
    assert {(name, fields["trouble"]) for name, fields in unreachable.emitted} == {
        ("job.run_again", "connection"),
        ("job.put_back", "connection"),
    }


async def test_an_alarm_is_dead_with_its_sqlstate_and_without_its_values(toys):
    async def break_a_rule(ctx, _toy):
        await write(ctx, "a secret toy")

    delivery = delivery_of()
    outcome = await toys.executor.run(job_of(break_a_rule), delivery)
    (error,) = await toys.errors(delivery)

    assert outcome.state == "dead"
    assert (error["error"], error["sqlstate"]) == ("CheckViolationError", "23514")
    assert "a secret toy" not in str(error)


async def test_a_handler_that_answers_something_else_fails_and_writes_nothing(toys):
    name = uuid.uuid4().hex

    async def answer_wrong(ctx, toy):
        await write(ctx, toy.name)
        return 42

    outcome = await toys.executor.run(
        job_of(answer_wrong, retry=Retry(attempts_max=1)), delivery_of(name)
    )

    assert outcome.state == "dead"
    assert await toys.toys(name) == 0


@pytest.mark.parametrize("how", ["begin", "commit", "rollback", "close"])
async def test_a_handler_that_ends_the_transaction_itself_fails_and_writes_nothing(toys, how):
    name = uuid.uuid4().hex

    async def end_it(ctx, toy):
        await write(ctx, toy.name)
        await getattr(ctx.store.session, how)()
        await write(ctx, toy.name)
        return Made(name=toy.name)

    delivery = delivery_of(name)
    outcome = await toys.executor.run(job_of(end_it, retry=Retry(attempts_max=1)), delivery)
    (error,) = await toys.errors(delivery)

    assert outcome.state == "dead"
    assert "a handler must not commit" in error["message"]
    assert await toys.toys(name) == 0


async def test_what_a_handler_only_added_to_its_session_is_written(toys, sessions):
    name = uuid.uuid4().hex

    async def add(ctx, toy):
        ctx.store.session.add(ToyRow(name=toy.name))
        return Made(name=toy.name)

    outcome = await toys.executor.run(job_of(add), delivery_of(name))

    assert outcome.state == "completed"
    assert await toys.toys(name) == 1


async def test_a_table_that_changes_under_a_prepared_statement_costs_no_attempt(toys, sessions):
    """asyncpg refuses a plan that is out of date; in a new transaction there is a new one."""
    name, query = uuid.uuid4().hex, "SELECT * FROM toys LIMIT 1"
    tries = []

    async def look_twice(ctx, toy):
        tries.append(1)
        driver = await driver_of(ctx.store.session)
        if len(tries) == 1:
            await driver.fetch(query)
            await driver.execute("ALTER TABLE toys ADD COLUMN IF NOT EXISTS colour text")
        await driver.fetch(query)
        return Made(name=toy.name)

    outcome = await toys.executor.run(job_of(look_twice), delivery_of(name))

    assert outcome.state == "completed"
    assert [fields["trouble"] for _, fields in toys.emitted if "trouble" in fields] == [
        "stale_plan"
    ]


async def test_an_alarm_from_the_driver_is_recorded_without_its_values(toys):
    async def break_a_rule(ctx, _toy):
        driver = await driver_of(ctx.store.session)
        await driver.execute("INSERT INTO toys VALUES ('a secret toy')")

    delivery = delivery_of()
    outcome = await toys.executor.run(job_of(break_a_rule), delivery)
    (error,) = await toys.errors(delivery)

    assert outcome.state == "dead"
    assert (error["error"], error["sqlstate"]) == ("CheckViolationError", "23514")
    assert error["message"].startswith("new row for relation")
    assert "a secret toy" not in str(error)


async def test_a_snapshot_job_reads_one_moment_and_cannot_write(toys, sessions):
    name = uuid.uuid4().hex

    async def read_twice(ctx, toy):
        count = text("SELECT count(*) FROM toys WHERE name = :name")
        before = await ctx.store.session.scalar(count, {"name": toy.name})
        async with sessions() as other, other.begin():
            await other.execute(text("INSERT INTO toys VALUES (:name)"), {"name": toy.name})
        after = await ctx.store.session.scalar(count, {"name": toy.name})
        return Made(name=f"{before} {after}")

    outcome = await toys.executor.run(job_of(read_twice, snapshot=True), delivery_of(name))
    refused = await toys.executor.run(
        job_of(make, snapshot=True, retry=Retry(attempts_max=1)), delivery_of()
    )

    assert outcome == Finished("completed", {"name": "0 0"})
    assert refused.state == "dead"


async def test_a_job_that_came_by_its_id_finds_its_payload_in_the_record(toys, sessions):
    name = uuid.uuid4().hex
    delivery = delivery_of(name)
    async with sessions() as session, session.begin():
        await Record(session).postpone(delivery.job, timedelta())

    by_id = Delivery(replace(delivery.job, payload_json="null"), 1, by_id=True)
    outcome = await toys.executor.run(job_of(make), by_id)

    assert outcome == Finished("completed", {"name": name})
    assert await toys.toys(name) == 1


async def test_an_id_without_payload_or_record_is_dead_not_lost(toys):
    delivery = Delivery(delivery_of().job, 1, by_id=True)

    outcome = await toys.executor.run(job_of(make), delivery)

    assert outcome.state == "dead"


async def test_a_cancelled_row_is_not_run(toys, sessions):
    name = uuid.uuid4().hex
    delivery = delivery_of(name)
    async with sessions() as session, session.begin():
        await Record(session).finish(delivery.job, "cancelled", None)

    outcome = await toys.executor.run(job_of(make), delivery)

    assert outcome == Finished("cancelled", None, replayed=True)
    assert await toys.toys(name) == 0


async def test_an_unknown_kind_waits_visibly_and_ends_a_day_after_it_was_first_met(toys, sessions):
    """Not a day after it was accepted: a job for next month may meet a worker that is being
    replaced."""
    delivery = delivery_of()
    accepted = datetime.now(UTC) - timedelta(days=30)
    delivery = replace(delivery, job=replace(delivery.job, enqueued_at=accepted))

    waiting = [await toys.executor.run(None, delivery) for _ in range(3)]
    stored = await toys.stored(delivery)
    errors = await toys.errors(delivery)
    async with sessions() as session, session.begin():
        await session.execute(
            text("UPDATE jobs SET blocked_since = blocked_since - interval '25 h' WHERE id = :id"),
            {"id": delivery.job.id},
        )
    ended = await toys.executor.run(None, delivery)

    assert all(isinstance(outcome, Later) for outcome in waiting)
    assert (stored.state, stored.standing.blocked_by) == ("queued", "newer_worker")
    assert stored.standing.attempts == 0
    assert [error["error"] for error in errors] == ["UnknownKind"]
    assert ended.state == "dead"


async def test_a_payload_of_a_newer_version_waits_for_a_worker_that_takes_it(toys, sessions):
    newer = Toy.model_json_schema()
    newer["properties"]["colour"] = {"type": "string"}
    async with sessions() as session, session.begin():
        await session.execute(
            text("INSERT INTO job_kinds VALUES ('toy', :schema)").bindparams(
                bindparam("schema", type_=JSONB)
            ),
            {"schema": newer},
        )
    fits = with_payload(delivery_of(), {"name": "bear", "colour": "brown"})
    fits_nobody = with_payload(delivery_of(), {"name": "bear", "size": 7})

    waiting = await toys.executor.run(job_of(make), fits)
    dead = await toys.executor.run(job_of(make), fits_nobody)

    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM job_kinds WHERE kind = 'toy'"))
    assert isinstance(waiting, Later)
    assert (await toys.stored(fits)).state == "queued"
    assert toys.names()[0] == "job.waits_for_worker"
    assert dead.state == "dead"


async def test_with_the_database_away_a_failure_waits_to_be_recorded(unreachable):
    outcome = await unreachable.executor.run(job_of(make), delivery_of(fault="whatever it was"))

    assert isinstance(outcome, Later)
    assert unreachable.names() == ["job.unrecorded"]


async def test_two_hundred_cancels_at_random_leave_no_outcome_in_doubt(toys, engine):
    """A job that says it was cancelled did not happen; one that answered did."""
    seed = 20260101
    import random

    chance = random.Random(seed)
    doubtful = []
    for number in range(200):
        name = f"{seed}-{number}-{uuid.uuid4().hex[:6]}"
        task = asyncio.ensure_future(toys.executor.run(job_of(make), delivery_of(name)))
        await asyncio.sleep(chance.random() * 0.008)
        task.cancel()
        try:
            outcome = await task
        except asyncio.CancelledError:
            outcome = None
        if (await toys.toys(name) == 1) != (outcome is not None):
            doubtful.append(name)

    assert doubtful == [], f"seed {seed}"
    assert engine.pool.checkedout() == 0
