"""What waits, as health shows it: batches that are not over, endpoints with a trouble."""

from datetime import timedelta

import pytest
from sqlalchemy import text

from db.workers import OpenBatches, backlog

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BATCH = text("""
    WITH batch AS (
      INSERT INTO batches (request_hash, on_dead, opened_at)
      VALUES (0, :on_dead, now() - interval '1 hour') RETURNING id
    )
    INSERT INTO jobs (kind, payload, state, finished_at, batch_id)
    SELECT 'purge_record', '{}', :state,
           CASE WHEN CAST(:state AS text) <> 'queued' THEN now() END, id FROM batch
""")
ENDPOINT = text("""
    INSERT INTO webhook_endpoints (name, url, secrets, failing_since, disabled_at)
    VALUES (:name, 'https://shop.example', '{whsec_}',
            now() - CAST(:failing AS interval), now() - CAST(:disabled AS interval))
""")


@pytest.fixture
async def session(sessions):
    """A transaction in which nothing waits, and of which nothing stays."""
    async with sessions() as made:
        await made.execute(text("UPDATE batches SET cancelled_at = now() WHERE fired_at IS NULL"))
        await made.execute(text("DELETE FROM webhook_endpoints"))
        yield made
        await made.rollback()


async def test_batches_that_are_not_over_are_counted_and_so_are_those_that_a_dead_member_holds(
    session,
):
    for on_dead, state in (("hold", "dead"), ("go_on", "dead"), ("hold", "queued")):
        await session.execute(BATCH, {"on_dead": on_dead, "state": state})

    batches = (await backlog(session)).batches

    assert (batches.open, batches.held) == (3, 1)
    assert batches.oldest_age_s >= 3_600


async def test_only_endpoints_with_a_trouble_are_named(session):
    troubles = (("fine", None, None), ("new", HOUR, None), ("old", DAY, HOUR))
    for name, failing, disabled in troubles:
        row = {"name": name, "failing": failing, "disabled": disabled}
        await session.execute(ENDPOINT, row)

    found = (await backlog(session)).endpoints

    assert [(one.endpoint, one.trouble, round(one.since_s, -2)) for one in found] == [
        ("new", "failing", 3_600),
        ("old", "disabled", 3_600),
    ]


async def test_where_nothing_waits_there_is_nothing(session):
    waiting = await backlog(session)

    assert (waiting.batches, waiting.endpoints) == (OpenBatches(), ())
