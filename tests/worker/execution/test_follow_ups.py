"""Follow-ups: jobs that a job enqueues exist if and only if it took effect, once."""

import asyncio
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest
from sqlalchemy import text

from db.audit import RECORD_RULES, Audit
from db.execution import JobRef
from db.operations import family_of
from jobs import (
    Cancel,
    Context,
    Job,
    Payload,
    Policy,
    Rejected,
    Request,
    Retry,
    Snooze,
    UnknownKindError,
)
from jobs._context import FOLLOW_UPS_MAX
from jobs._errors import TooManyFollowUpsError
from tests.letters import SendLetter, a_letter
from tests.worker.execution.kit import NO_SERVICES, NO_STORE, recording_executor
from worker.execution.delivery import Delivery, with_payload
from worker.execution.outcome import Finished, Later

pytestmark = pytest.mark.usefixtures("letters")


class Order(Payload):
    """Somebody ordered something."""

    kind: ClassVar[str] = "order"
    address: str = "12 High Street"


@pytest.fixture
async def orders(sessions):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    return recording_executor(sessions)


def order(*, job_id=None, try_number=1):
    job = JobRef(job_id or uuid.uuid4(), "order", "null", datetime.now(UTC))
    return with_payload(Delivery(job, try_number), {})


def job_of(handler, **policy):
    return Job(payload=Order, handler=handler, policy=Policy(**policy))


def answering(answer, *, key=None):
    """Return a handler that enqueues two letters and then answers, or raises."""

    async def handle(ctx, _order):
        await ctx.enqueue(a_letter(pages=1), key=key)
        await ctx.enqueue(a_letter(pages=2))
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle


CHILDREN = text("""
    SELECT * FROM jobs WHERE parent_id = :id ORDER BY coalesce((payload->>'pages')::int, 1)
""")


async def children(sessions, parent):
    async with sessions() as session:
        return (await session.execute(CHILDREN, {"id": parent})).all()


@pytest.mark.parametrize("snapshot", [False, True])
async def test_follow_ups_are_accepted_with_the_job_that_enqueued_them(orders, sessions, snapshot):
    delivery = order()
    ids = []

    async def handle(ctx, _order):
        ids.append(await ctx.enqueue(a_letter(pages=1)))
        ids.extend(await ctx.enqueue_many([a_letter(pages=2), Request(a_letter(3), key="third")]))

    outcome = await orders.executor.run(job_of(handle, snapshot=snapshot), delivery)

    found = await children(sessions, delivery.job.id)
    assert outcome == Finished("completed", None)
    assert [row.id for row in found] == ids
    assert [(row.kind, row.state, row.payload.get("pages", 1)) for row in found] == [
        ("send_letter", "queued", 1),
        ("send_letter", "queued", 2),
        ("send_letter", "queued", 3),
    ]
    assert found[2].key == "third"


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize(
    "answer",
    [Rejected("no"), Cancel("no"), Snooze(timedelta(hours=1)), ValueError("no")],
    ids=lambda answer: type(answer).__name__,
)
async def test_a_job_without_effect_leaves_no_follow_ups(orders, sessions, answer, snapshot):
    delivery = order()

    await orders.executor.run(job_of(answering(answer), snapshot=snapshot), delivery)

    assert await children(sessions, delivery.job.id) == []


async def test_a_job_delivered_many_times_at_once_enqueues_its_follow_ups_once(orders, sessions):
    delivery = order()

    outcomes = await asyncio.gather(
        *(orders.executor.run(job_of(answering(None)), delivery) for _ in range(8))
    )

    assert {outcome.state for outcome in outcomes} == {"completed"}
    assert len(await children(sessions, delivery.job.id)) == 2


async def test_a_try_that_failed_proposes_the_same_ids_in_the_next(orders, sessions):
    delivery = order()
    proposed = []

    async def handle(ctx, _order):
        proposed.append(await ctx.enqueue(a_letter()))
        if len(proposed) == 1:
            raise ValueError("not yet")

    await orders.executor.run(job_of(handle), delivery)
    await orders.executor.run(job_of(handle), replace(delivery, try_number=2))

    assert proposed[0] == proposed[1]
    assert [row.id for row in await children(sessions, delivery.job.id)] == proposed[:1]


async def test_where_a_key_is_taken_by_the_same_payload_that_job_stands(orders, sessions):
    first, second = order(), order()

    for delivery in (first, second):
        await orders.executor.run(job_of(answering(None, key="the one")), delivery)

    assert len(await children(sessions, first.job.id)) == 2
    assert [row.key for row in await children(sessions, second.job.id)] == [None]


async def test_a_key_of_another_payload_is_the_failure_of_the_job_and_nothing_commits(
    orders, sessions
):
    await orders.executor.run(job_of(answering(None, key="taken")), order())
    delivery = order()

    async def handle(ctx, _order):
        await ctx.enqueue(a_letter(pages=7), key="taken")
        await ctx.enqueue(a_letter(pages=8))

    outcome = await orders.executor.run(job_of(handle, retry=Retry(attempts_max=1)), delivery)

    assert outcome.state == "dead"
    assert outcome.result["sqlstate"] == "TL003"
    assert await children(sessions, delivery.job.id) == []


async def test_keys_taken_in_opposite_orders_do_not_deadlock(orders, sessions):
    def enqueues(keys):
        async def handle(ctx, _order):
            await ctx.enqueue_many([Request(a_letter(), key=key) for key in keys])

        return handle

    keys = [f"pair-{number}" for number in range(40)]
    pairs = [(order(), keys), (order(), keys[::-1])] * 3

    outcomes = await asyncio.gather(
        *(orders.executor.run(job_of(enqueues(some)), delivery) for delivery, some in pairs)
    )

    assert {outcome.state for outcome in outcomes} == {"completed"}
    assert orders.count("job.run_again") == 0


async def test_a_follow_up_runs_when_its_delay_from_the_commit_is_over(orders, sessions):
    delivery, at = order(), datetime.now(UTC) + timedelta(days=3)

    async def handle(ctx, _order):
        await ctx.enqueue(a_letter(pages=1), delay=timedelta(hours=2))
        await ctx.enqueue(a_letter(pages=2), run_at=at)

    await orders.executor.run(job_of(handle), delivery)

    soon, later = await children(sessions, delivery.job.id)
    assert timedelta(hours=1.9) < soon.run_at - soon.enqueued_at < timedelta(hours=2.1)
    assert later.run_at == at


async def test_what_is_due_is_sent_after_the_commit_and_what_is_not_is_left_to_the_relay(sessions):
    sent = []
    recording = recording_executor(sessions, send=sent.extend)
    delivery = order()

    async def handle(ctx, _order):
        await ctx.enqueue(a_letter(pages=1))
        await ctx.enqueue(a_letter(pages=2), delay=timedelta(hours=2))
        assert sent == []

    await recording.executor.run(job_of(handle), delivery)

    first, _ = await children(sessions, delivery.job.id)
    assert [(job.id, job.kind) for job in sent] == [(str(first.id), "send_letter")]


async def test_a_kind_that_is_not_registered_is_refused_at_the_call(orders):
    async def handle(ctx, _order):
        with pytest.raises(UnknownKindError):
            await ctx.enqueue(Order())
        with pytest.raises(ValueError, match="not both"):
            await ctx.enqueue(a_letter(), delay=timedelta(1), run_at=datetime.now(UTC))

    assert await orders.executor.run(job_of(handle), order()) == Finished("completed", None)


async def test_a_run_enqueues_at_most_a_thousand(orders, sessions):
    delivery = order()

    async def handle(ctx, _order):
        await ctx.enqueue_many([a_letter()] * FOLLOW_UPS_MAX)
        with pytest.raises(TooManyFollowUpsError):
            await ctx.enqueue(a_letter())

    await orders.executor.run(job_of(handle, timeout=timedelta(seconds=60)), delivery)

    assert len(await children(sessions, delivery.job.id)) == FOLLOW_UPS_MAX


async def test_the_audit_finds_a_follow_up_of_a_job_without_effect(orders, sessions):
    delivery = order()
    await orders.executor.run(job_of(answering(None)), delivery)
    async with sessions() as session:
        assert (await Audit(session, RECORD_RULES).run_in_snapshot()).differences == 0
    async with sessions() as session, session.begin():
        await session.execute(text("UPDATE jobs SET state = 'rejected' WHERE kind = 'order'"))

    async with sessions() as session:
        report = await Audit(session, RECORD_RULES).run_in_snapshot()

    assert {one.name: one.differences for one in report.findings}["follow_up_has_parent"] == 2


async def test_a_family_is_found_from_any_of_its_members(orders, sessions):
    delivery = order()
    await orders.executor.run(job_of(answering(None)), delivery)
    child, _ = await children(sessions, delivery.job.id)

    async with sessions() as session:
        from_above = await family_of(session, delivery.job.id)
        from_below = await family_of(session, child.id)

    assert from_above == from_below
    assert [one.kind for one in from_above] == ["order", "send_letter", "send_letter"]


async def test_a_follow_up_whose_parent_was_put_back_is_not_there(orders, sessions):
    delivery = order()
    outcome = await orders.executor.run(job_of(answering(Snooze(timedelta(0)))), delivery)

    assert isinstance(outcome, Later)
    async with sessions() as session:
        assert [one.kind for one in await family_of(session, delivery.job.id)] == ["order"]


def test_a_handler_can_be_tested_alone_by_what_it_enqueues():
    ctx = Context(uuid.uuid4(), 1, datetime.now(UTC), store=NO_STORE, services=NO_SERVICES)

    asyncio.run(answering(None)(ctx, Order()))

    assert [one.request.kind for one in ctx.follow_ups] == [SendLetter.kind] * 2
