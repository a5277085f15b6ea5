"""Batches: jobs that belong together, and one that follows, exactly once, when all are over."""

import asyncio
import uuid
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from sqlalchemy import text

from db.batches import Batches
from db.operations import replay_these
from db.retention import Retention
from db.store import Store
from jobs import (
    Cancel,
    Client,
    DoorClosedError,
    InvalidKeyError,
    InvalidPayloadError,
    JobNotFoundError,
    KeyConflictError,
    OtherBatchError,
    Payload,
    Request,
    ResultTimeoutError,
    UnknownEndpointError,
    UnknownKindError,
)
from tests.letters import BatchCounted, CountBatch, a_letter
from tests.worker.running import running_worker
from worker.maintenance.batches import BatchWatch
from worker.monitoring.events import Events

pytestmark = pytest.mark.usefixtures("letters")
ENOUGH_S = 30
MANY = 2_000


@pytest.fixture
def client(sessions):
    return Client(sessions=sessions)


def letters(count, address="12 High Street"):
    return [a_letter(pages=1 + n % 90, address=address) for n in range(count)]


async def end(sessions, *jobs, state="completed"):
    """Let jobs end as if a worker had run them."""
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE jobs SET state = :state, finished_at = clock_timestamp() "
                "WHERE id = ANY(:ids)"
            ),
            {"state": state, "ids": [job.id for job in jobs]},
        )


async def fire(sessions):
    """Look once for batches that are over; return those that were fired."""
    async with sessions() as session, session.begin():
        return [batch.id for batch in await Batches(session).fire(1_000)]


async def then_of(sessions, batch):
    """Return the rows of the jobs that follow a batch."""
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT * FROM jobs WHERE key = :key"), {"key": f"batch:{batch.id}"}
        )
        return rows.all()


async def differences(sessions):
    async with sessions() as session:
        report = await Store(session).audit.run_in_snapshot()
    return [finding for finding in report.findings if finding.differences]


# -- Opening --------------------------------------------------------------------------------------


async def test_a_batch_has_its_jobs_queued_in_one_statement(client):
    batch = await client.batch(letters(3), then=CountBatch())
    status = await batch.status()

    assert batch.created
    assert len(batch.jobs) == 3
    assert (status.state, status.queued, status.members, status.final) == ("open", 3, 3, 0)


async def test_a_batch_exists_if_and_only_if_its_transaction_commits(client, sessions):
    async with sessions() as session:
        lost = await client.batch(letters(3), then=CountBatch(), session=session)
        await session.rollback()
    async with sessions() as session, session.begin():
        kept = await client.batch(letters(3), then=CountBatch(), session=session)

    with pytest.raises(JobNotFoundError):
        await lost.status()
    assert (await kept.status()).queued == 3


async def test_the_same_key_and_jobs_are_the_same_batch(client):
    key = uuid.uuid4().hex
    asked = [Request(one, delay=timedelta(hours=1)) for one in letters(3)]
    first = await client.batch(asked, then=CountBatch(), key=key)
    again = await client.batch(asked, then=CountBatch(), key=key)

    assert (first.created, again.created) == (True, False)
    assert first.id == again.id
    assert (await again.status()).members == 3


async def test_the_same_key_with_other_jobs_or_another_end_is_refused(client):
    key = uuid.uuid4().hex
    await client.batch(letters(3), then=CountBatch(), key=key)

    with pytest.raises(KeyConflictError):
        await client.batch(letters(4), then=CountBatch(), key=key)
    with pytest.raises(KeyConflictError):
        await client.batch(letters(3), then=CountBatch(name="other"), key=key)


async def test_one_key_at_once_is_one_batch(client):
    key = uuid.uuid4().hex
    batches = await asyncio.gather(
        *(client.batch(letters(20), then=CountBatch(), key=key) for _ in range(8))
    )

    assert [batch.created for batch in batches].count(True) == 1
    assert (await batches[0].status()).members == 20


@pytest.mark.parametrize(
    ("jobs", "then", "key", "refusal"),
    [
        (
            [a_letter()],
            a_letter(address="x" * 40).model_copy(update={"pages": 0}),
            None,
            InvalidPayloadError,
        ),
        ([a_letter().model_copy(update={"pages": 0})], CountBatch(), None, InvalidPayloadError),
        ([a_letter()], CountBatch(), "", InvalidKeyError),
        ([], CountBatch(), "k" * 201, InvalidKeyError),
    ],
)
async def test_a_refused_batch_leaves_nothing(client, sessions, jobs, then, key, refusal):
    before = await count_of(sessions, "batches"), await count_of(sessions, "jobs")

    with pytest.raises(refusal):
        await client.batch(jobs, then=then, key=key)

    assert (await count_of(sessions, "batches"), await count_of(sessions, "jobs")) == before


async def count_of(sessions, table):
    async with sessions() as session:
        return await session.scalar(text(f"SELECT count(*) FROM {table}"))


async def test_an_end_of_an_unknown_kind_is_refused(client):
    class Nothing(Payload):
        kind = "nothing"

    with pytest.raises(UnknownKindError, match="the job that follows"):
        await client.batch(letters(1), then=Nothing())


async def test_a_job_that_was_accepted_before_joins_one_batch_and_no_second(client):
    key = uuid.uuid4().hex
    job = await client.enqueue(a_letter(), key=key)
    batch = await client.batch([Request(a_letter(), key=key), a_letter()], then=CountBatch())

    assert batch.jobs[0].id == job.id
    assert (await batch.status()).members == 2
    with pytest.raises(OtherBatchError):
        await client.batch([Request(a_letter(), key=key)], then=CountBatch())


async def test_redis_alone_has_no_batches_and_says_so(redis):
    with pytest.raises(DoorClosedError, match="batches are in PostgreSQL"):
        await Client(redis).batch(letters(1), then=CountBatch())


async def test_sql_alone_opens_a_batch(sessions):
    async with sessions() as session, session.begin():
        batch_id = await session.scalar(
            text("""
                SELECT open_batch(
                  '[{"kind": "send_letter", "payload": {"address": "a"}},
                    {"kind": "send_letter", "payload": {"address": "b"}}]',
                  'count_batch', '{}')
            """)
        )

    assert (await Client(sessions=sessions).batch_handle(batch_id).status()).queued == 2


async def test_sql_alone_is_told_why_not(sessions):
    async with sessions() as session:
        with pytest.raises(Exception, match="unknown job kind 'nope'"):
            await session.execute(
                text("""SELECT open_batch('[{"kind": "nope", "payload": {}}]', NULL, NULL)""")
            )


# -- Firing ---------------------------------------------------------------------------------------


async def test_it_fires_once_when_the_last_job_is_over_and_says_how_they_ended(client, sessions):
    batch = await client.batch(letters(4), then=CountBatch(name="n"))
    done, refused, dead, last = batch.jobs
    await end(sessions, done)
    await end(sessions, refused, state="rejected")
    await end(sessions, dead, state="dead")

    assert batch.id not in await fire(sessions)
    await last.cancel()
    assert batch.id in await fire(sessions)
    assert batch.id not in await fire(sessions)

    (then,) = await then_of(sessions, batch)
    ended = {"completed": 1, "rejected": 1, "dead": 1, "cancelled": 1}
    assert then.payload == {"name": "n", "batch": {"id": str(batch.id), **ended}}
    assert (await batch.status()).then_id == then.id
    assert await differences(sessions) == []


async def test_an_empty_batch_fires_at_once(client, sessions):
    batch = await client.batch([], then=CountBatch())

    assert (await batch.status()).state == "fired"
    assert len(await then_of(sessions, batch)) == 1


async def test_a_batch_of_jobs_that_are_over_already_fires(client, sessions):
    key = uuid.uuid4().hex
    await end(sessions, await client.enqueue(a_letter(), key=key))
    batch = await client.batch([Request(a_letter(), key=key)], then=CountBatch())

    assert batch.id in await fire(sessions)


async def test_a_batch_that_nothing_follows_ends_too(client, sessions):
    batch = await client.batch(letters(1))
    await end(sessions, *batch.jobs)
    await fire(sessions)

    assert (await batch.status()).state == "fired"
    assert await batch.result(timeout=ENOUGH_S) is None


async def test_an_end_whose_kind_has_no_field_for_it_is_enqueued_as_it_is(client, sessions):
    batch = await client.batch([], then=a_letter())

    assert (await then_of(sessions, batch))[0].payload["address"] == "12 High Street"


async def test_a_webhook_hears_of_the_end_of_the_job_that_follows(client, sessions):
    name = f"shop-{uuid.uuid4().hex[:8]}"
    then = Request(CountBatch(), notify=name)
    with pytest.raises(UnknownEndpointError):
        await client.batch([], then=then)
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "INSERT INTO webhook_endpoints (name, url, secrets) "
                "VALUES (:name, 'https://shop.example', '{a-secret}')"
            ),
            {"name": name},
        )
    batch = await client.batch([], then=then)

    assert [row.notify for row in await then_of(sessions, batch)] == [name]


async def test_many_lookers_at_once_fire_it_once(client, sessions):
    batches = [await client.batch(letters(2), then=CountBatch()) for _ in range(10)]
    await end(sessions, *(job for batch in batches for job in batch.jobs))

    fired = [
        one for some in await asyncio.gather(*(fire(sessions) for _ in range(8))) for one in some
    ]

    assert sorted(set(fired) & {batch.id for batch in batches}) == sorted(
        batch.id for batch in batches
    )
    assert len(fired) == len(set(fired))
    for batch in batches:
        assert len(await then_of(sessions, batch)) == 1


async def test_a_kind_that_is_gone_when_it_fires_does_not_hold_it(client, sessions):
    batch = await client.batch(letters(1), then=CountBatch())
    await end(sessions, *batch.jobs)
    async with sessions() as session:
        await session.execute(text("DELETE FROM job_kinds WHERE kind = 'count_batch'"))
        fired = await Batches(session).fire(10)
        then = await session.scalar(
            text("SELECT state FROM jobs WHERE id = (SELECT then_id FROM batches WHERE id = :id)"),
            {"id": batch.id},
        )
        await session.rollback()

    assert batch.id in [one.id for one in fired]
    assert then == "queued"


async def test_a_batch_that_its_dead_hold_fires_after_their_retry(client, sessions):
    batch = await client.batch(letters(2), then=CountBatch(), on_dead="hold")
    await end(sessions, batch.jobs[0])
    await end(sessions, batch.jobs[1], state="dead")

    assert batch.id not in await fire(sessions)
    assert (await batch.status()).state == "held"

    async with sessions() as session, session.begin():
        await replay_these(session, [batch.jobs[1].id], "by a test")
    assert (await batch.status()).state == "open"
    await end(sessions, batch.jobs[1])
    assert batch.id in await fire(sessions)


async def test_a_retry_after_it_has_fired_is_counted_and_fires_nothing(client, sessions):
    batch = await client.batch(letters(2), then=CountBatch())
    await end(sessions, batch.jobs[0])
    await end(sessions, batch.jobs[1], state="dead")
    await fire(sessions)
    async with sessions() as session, session.begin():
        await replay_these(session, [batch.jobs[1].id], "by a test")

    replayed = await batch.status()
    assert (replayed.state, replayed.queued, replayed.dead) == ("fired", 1, 0)
    assert await differences(sessions) == []
    await end(sessions, batch.jobs[1])
    assert batch.id not in await fire(sessions)
    assert (await batch.status()).completed == 2
    assert len(await then_of(sessions, batch)) == 1


async def test_the_audit_sees_a_batch_that_fired_too_early(client, sessions):
    async with sessions() as session, session.begin():
        batch = await client.batch(letters(2), then=CountBatch(), session=session)
        await session.execute(
            text("UPDATE batches SET fired_at = clock_timestamp(), counts = '{}' WHERE id = :id"),
            {"id": batch.id},
        )
        report = await Store(session).audit.run()
        await session.rollback()

    broken = {finding.name: finding.differences for finding in report.findings}
    assert (broken["batches_over"], broken["batches_whole"], broken["batches_followed"]) == (
        2,
        1,
        1,
    )


# -- The whole of it ------------------------------------------------------------------------------


async def test_a_cancelled_batch_runs_no_more_jobs_and_never_fires(client, sessions):
    batch = await client.batch(letters(1_200), then=CountBatch())
    await end(sessions, batch.jobs[0])
    status = await batch.cancel("no longer wanted")

    assert (status.state, status.queued, status.completed, status.cancelled) == (
        "cancelled",
        0,
        1,
        1_199,
    )
    assert batch.id not in await fire(sessions)
    assert await then_of(sessions, batch) == []
    assert await batch.result(timeout=ENOUGH_S) == Cancel("the batch was cancelled")
    assert await batch.jobs[1].result() == Cancel("no longer wanted")
    assert await differences(sessions) == []


async def test_a_batch_that_has_fired_stays_fired_when_it_is_cancelled(client, sessions):
    batch = await client.batch([], then=CountBatch())

    assert (await batch.cancel()).state == "fired"


async def test_a_cancel_passes_over_a_job_that_ends_and_waits_for_it(client, sessions):
    batch = await client.batch(letters(2), then=CountBatch())
    async with sessions() as ending:
        await ending.execute(
            text("SELECT FROM jobs WHERE id = :id FOR UPDATE"), {"id": batch.jobs[0].id}
        )
        cancelling = asyncio.create_task(batch.cancel(timeout=ENOUGH_S))
        await batch.jobs[1].result(ENOUGH_S)
        assert not cancelling.done()
        await ending.execute(
            text("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = :id"),
            {"id": batch.jobs[0].id},
        )
        await ending.commit()
        status = await cancelling

    assert (status.queued, status.completed, status.cancelled) == (0, 1, 1)


async def test_a_result_that_takes_too_long_is_told(client):
    batch = await client.batch(letters(2), then=CountBatch())

    with pytest.raises(ResultTimeoutError, match="2 jobs to do"):
        await batch.result(timeout=0.1)


async def test_a_batch_that_is_not_there_is_told(client):
    with pytest.raises(JobNotFoundError, match="no batch"):
        await client.batch_handle(uuid.uuid4()).status()


async def test_retention_keeps_the_jobs_of_an_open_batch_and_counts_what_it_deletes(
    client, sessions
):
    kept_for = {"send_letter": timedelta(days=1)}
    batch = await client.batch(letters(3), then=CountBatch())
    await end(sessions, *batch.jobs[:2])
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE jobs SET purgeable = true, finished_at = now() - interval '2 days' "
                "WHERE batch_id = :id AND state = 'completed'"
            ),
            {"id": batch.id},
        )
        await Retention(session).purge(kept_for, 1_000)
    assert (await batch.status()).completed == 2

    await end(sessions, batch.jobs[2])
    await fire(sessions)
    async with sessions() as session, session.begin():
        await Retention(session).purge(kept_for, 1_000)

    status = await batch.status()
    assert (status.completed, status.deleted, status.members) == (1, 2, 3)
    assert await differences(sessions) == []


async def test_a_batch_is_forgotten_with_the_job_that_followed_it(client, sessions):
    batch = await client.batch([], then=CountBatch())
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "UPDATE jobs SET state = 'completed', purgeable = true, "
                "finished_at = now() - interval '2 days' WHERE key = :key"
            ),
            {"key": f"batch:{batch.id}"},
        )
        await Retention(session).purge({"count_batch": timedelta(days=1)}, 1_000)

    with pytest.raises(JobNotFoundError):
        await batch.status()
    assert await differences(sessions) == []


# -- With workers ---------------------------------------------------------------------------------


async def test_workers_run_it_and_its_end_is_enqueued_by_one_of_them(
    sessions, redis, database_url, redis_url
):
    client = Client(redis, sessions=sessions)
    fired = []

    def hear(name, fields):
        if name == "batch.fired":
            fired.append(fields["batch_id"])

    async with (
        running_worker(database_url, redis_url, hear),
        running_worker(database_url, redis_url, hear),
    ):
        jobs = [*letters(30), *letters(2, "nowhere")]
        batch = await client.batch(jobs, then=CountBatch())
        answer = await batch.result(timeout=ENOUGH_S)

    assert answer == BatchCounted(completed=30, rejected=2, dead=0, cancelled=0)
    assert fired.count(str(batch.id)) == 1
    assert len(await then_of(sessions, batch)) == 1


async def test_a_duty_that_dies_before_its_commit_leaves_the_batch_to_the_next(client, sessions):
    batch = await client.batch(letters(1), then=CountBatch())
    await end(sessions, *batch.jobs)
    async with sessions() as session:
        await Batches(session).fire(10)
        await session.rollback()

    assert (await batch.status()).state == "open"
    assert batch.id in await fire(sessions)


async def test_without_redis_it_fires_all_the_same(client, sessions):
    batch = await client.batch([], then=CountBatch())
    other = await client.batch(letters(1), then=CountBatch())
    await end(sessions, *other.jobs)
    heard = []
    async with Redis(port=1) as nobody:  # refuses every connection
        events = Events(lambda name, _: heard.append(name))
        await BatchWatch(sessions, nobody, "arq:queue", events).step()

    assert "batch.fired" in heard
    assert (await other.status()).state == "fired"
    assert (await batch.status()).state == "fired"


async def test_workers_without_redis_run_it_to_its_end(client, database_url):
    async with running_worker(database_url, "redis://127.0.0.1:1"):
        batch = await client.batch(letters(5, uuid.uuid4().hex), then=CountBatch())
        answer = await batch.result(timeout=ENOUGH_S)

    assert answer == BatchCounted(completed=5, rejected=0, dead=0, cancelled=0)


async def test_thousands_of_members_share_no_row(client, sessions):
    """Two members end in open transactions side by side: neither waits for the other."""
    batch = await client.batch(letters(MANY), then=CountBatch())
    ended = text("UPDATE jobs SET state = 'completed', finished_at = now() WHERE id = :id")
    async with sessions() as one, sessions() as other, asyncio.timeout(ENOUGH_S):
        await one.execute(ended, {"id": batch.jobs[0].id})
        await other.execute(ended, {"id": batch.jobs[1].id})
        assert batch.id not in await fire(sessions)
        await one.commit()
        await other.commit()

    status = await batch.status()
    assert (status.completed, status.queued) == (2, MANY - 2)
