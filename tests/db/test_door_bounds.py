"""What a caller may hand over has a size: it is refused or cut where it arrives, in every door."""

import json
import sys
import types
import uuid
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from jobs import Client, InvalidPayloadError
from jobs._client.sql import REASON_CHARACTERS_MAX
from jobs._payload import PAYLOAD_DEPTH_MAX
from jobs._request import TRACEPARENT_CHARACTERS_MAX
from tests.letters import RepeatValue, a_letter

MEGABYTE = 1_000_000
TRY = text("""
    SELECT id, fault, message FROM try_enqueue_job(
      :kind, CAST(:payload AS jsonb), NULL, NULL, CAST(:id AS uuid), :traceparent)
""")


@pytest.fixture
async def client(letters, redis, sessions):
    async with Client(redis, sessions=sessions) as made:
        yield made


@pytest.fixture
def enqueue(sessions):
    async def call(payload, kind="send_letter", traceparent=None):
        async with sessions() as session, session.begin():
            asked = {
                "kind": kind,
                "payload": payload,
                "id": str(uuid.uuid4()),
                "traceparent": traceparent,
            }
            return (await session.execute(TRY, asked)).one()

    return call


async def row_of(sessions, job_id):
    async with sessions() as session:
        found = await session.execute(text("SELECT * FROM jobs WHERE id = :id"), {"id": job_id})
        return found.mappings().one()


def nested(depth):
    """Return a payload of `repeat_value` whose arrays and objects are nested so deep."""
    value: Any = 1
    for level in range(depth - 1):
        value = [value] if level % 2 else {"[": value}
    return value


@pytest.mark.parametrize("size", [TRACEPARENT_CHARACTERS_MAX + 1, MEGABYTE])
async def test_a_traceparent_that_is_none_is_dropped_and_the_job_accepted(sessions, enqueue, size):
    job = await enqueue('{"address": "a"}', traceparent="0" * size)
    fine = await enqueue('{"address": "a"}', traceparent="0" * TRACEPARENT_CHARACTERS_MAX)

    assert (await row_of(sessions, job.id))["traceparent"] is None
    assert len((await row_of(sessions, fine.id))["traceparent"]) == TRACEPARENT_CHARACTERS_MAX


async def test_the_client_drops_it_too(client, sessions, monkeypatch):
    module: Any = types.ModuleType("opentelemetry.propagate")
    module.inject = lambda carrier: carrier.update(traceparent="0" * MEGABYTE)
    monkeypatch.setitem(sys.modules, "opentelemetry.propagate", module)
    job = await client.enqueue(a_letter(), delay=timedelta(hours=1))

    assert (await row_of(sessions, job.id))["traceparent"] is None


async def test_a_long_reason_is_cut_by_the_database(sessions, enqueue):
    job = await enqueue('{"address": "a"}')
    async with sessions() as session, session.begin():
        await session.execute(text("SELECT cancel_job(:id, repeat('r', 10000000))"), {"id": job.id})

    assert len((await row_of(sessions, job.id))["result"]["reason"]) == REASON_CHARACTERS_MAX


@pytest.mark.parametrize(
    ("reason", "stored"),
    [("r" * 10 * MEGABYTE, "r" * REASON_CHARACTERS_MAX), ("a\x00b\ud800", "a\ufffdb?")],
)
async def test_any_reason_of_a_client_is_stored_as_far_as_it_can_be(
    client, sessions, reason, stored
):
    job = await client.enqueue(a_letter(), delay=timedelta(hours=1))

    assert await job.cancel(reason)
    assert (await row_of(sessions, job.id))["result"] == {"reason": stored}


async def test_a_payload_is_refused_beyond_its_depth_by_sql(enqueue):
    fits = json.dumps({"value": nested(PAYLOAD_DEPTH_MAX)})
    too_deep = json.dumps({"value": nested(PAYLOAD_DEPTH_MAX + 1)})
    absurd = '{"value": ' + "[" * 3000 + "]" * 3000 + "}"

    assert (await enqueue(fits, "repeat_value")).fault is None
    for payload in (too_deep, absurd):
        refused = await enqueue(payload, "repeat_value")
        assert refused.fault == "TL002"
        assert "nested more than 100 deep" in refused.message


async def test_a_payload_is_refused_beyond_its_depth_by_the_client(client, redis):
    await client.enqueue(RepeatValue(value=nested(PAYLOAD_DEPTH_MAX)))
    await Client(redis).enqueue(RepeatValue(value=nested(PAYLOAD_DEPTH_MAX)))
    loop: list[object] = []
    loop.append(loop)
    for value in (nested(PAYLOAD_DEPTH_MAX + 1), nested(500), loop):
        for one in (client, Client(redis)):
            with pytest.raises(InvalidPayloadError):
                await one.enqueue(RepeatValue(value=value))


async def test_many_brackets_are_not_depth(client):
    await client.enqueue(RepeatValue(value=[[], {}] * 200 + ["[{" * 200, '"' + "[" * 300]))


async def test_a_lone_surrogate_is_refused_as_a_payload_that_cannot_be_written(client):
    with pytest.raises(InvalidPayloadError, match="no Unicode"):
        await client.enqueue(RepeatValue(value="\ud800"))
