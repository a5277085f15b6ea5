"""From the end of a job to its receiver: signed, tried again, and given up when nobody listens."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from db.webhooks import Deliveries, Endpoints
from jobs._webhooks import Webhooks
from jobs._webhooks.messages import headers_of, new_secret
from tests.letters import a_letter
from tests.webhooks.receiver import receiving
from worker.dev.workbench import Workbench

pytestmark = pytest.mark.usefixtures("letters")

SECRET = new_secret()
LONG = timedelta(hours=5)
"""Longer than any wait between two tries."""


@pytest.fixture
def receiver():
    with receiving() as started:
        yield started


@pytest.fixture
async def bench(new_database_url, receiver):
    """Return a workbench whose endpoint `shop` is the receiver."""
    engine = create_engine(new_database_url, pool_size=4, application_name="teller-tests")
    sessions = create_sessions(engine)
    webhooks = Webhooks(Deliveries(sessions), private_allowed=True)
    services = SimpleNamespace(webhooks=webhooks)
    async with sessions.begin() as session:
        await Endpoints(session).add("shop", receiver.url, SECRET)
    yield Workbench(engine, sessions, services)  # type: ignore[arg-type]
    await webhooks.aclose()
    await engine.dispose()


async def deliver(bench):
    """Run what is due, and return the row of the one delivery."""
    ran = [row for row in await bench.run_due() if row.kind == "deliver_webhook"]
    return ran[-1] if ran else None


async def endpoint(bench):
    async with bench.sessions() as session:
        [one] = await Endpoints(session).list()
        return one


async def test_a_receiver_hears_of_an_end_with_its_result(bench, receiver):
    letter = await bench.client.enqueue(a_letter(), key="order-42", notify="shop")

    delivery = await deliver(bench)

    [came] = receiver.requests
    message = json.loads(came.body)
    row = await bench.job(letter.id)
    assert delivery.state == "completed"
    assert delivery.result == {"status": 200}
    assert message["type"] == "job.completed"
    assert datetime.fromisoformat(message["timestamp"]) == row.finished_at
    assert message["data"] == {
        "job_id": str(letter.id),
        "kind": "send_letter",
        "key": "order-42",
        "state": "completed",
        "result": {"letter_id": str(letter.id)},
    }


async def test_what_arrives_is_signed_with_the_endpoint_s_secret(bench, receiver):
    await bench.client.enqueue(a_letter(), notify="shop")
    await deliver(bench)

    [came] = receiver.requests
    sent_at = datetime.fromtimestamp(int(came.headers["webhook-timestamp"]), UTC)
    expected = headers_of(came.headers["webhook-id"], sent_at, came.body, [SECRET])
    assert came.headers["webhook-signature"] == expected["webhook-signature"]


async def test_a_failed_delivery_comes_again_with_the_same_id(bench, receiver):
    receiver.answer((500, {}))
    await bench.client.enqueue(a_letter(), notify="shop")

    failed = await deliver(bench)
    assert (failed.state, failed.attempts) == ("queued", 1)
    assert (await endpoint(bench)).failing_since is not None
    await bench.advance(LONG)
    assert (await deliver(bench)).state == "completed"

    first, second = receiver.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert (await endpoint(bench)).failing_since is None


async def test_a_receiver_that_asks_for_a_pause_spends_no_attempt(bench, receiver):
    receiver.answer((429, {"retry-after": "3600"}))
    await bench.client.enqueue(a_letter(), notify="shop")

    paused = await deliver(bench)

    assert (paused.state, paused.attempts) == ("queued", 0)
    assert paused.run_at - datetime.now(UTC) > timedelta(minutes=59)


async def test_a_receiver_that_is_gone_gets_no_more(bench, receiver):
    receiver.answer((410, {}))
    await bench.client.enqueue(a_letter(), notify="shop")

    assert (await deliver(bench)).state == "cancelled"
    assert (await endpoint(bench)).disabled_because == "its receiver answered 410 Gone"

    await bench.client.enqueue(a_letter(address="13 High Street"), notify="shop")
    cancelled = await deliver(bench)
    assert cancelled.result == {
        "reason": "the endpoint is disabled: its receiver answered 410 Gone"
    }
    assert len(receiver.requests) == 1


async def test_an_endpoint_that_has_failed_for_days_is_disabled_until_it_is_enabled(
    bench, receiver
):
    ago = text("UPDATE webhook_endpoints SET failing_since = clock_timestamp() - interval '4 days'")
    async with bench.sessions.begin() as session:
        await session.execute(ago)
    receiver.answer((500, {}))
    await bench.client.enqueue(a_letter(), notify="shop")

    await deliver(bench)

    assert "failed for more than 3 days" in (await endpoint(bench)).disabled_because
    async with bench.sessions.begin() as session:
        assert await Endpoints(session).enable("shop")
    await bench.advance(LONG)
    assert (await deliver(bench)).state == "completed"


async def test_nobody_there_is_a_failure_that_says_so(bench, receiver):
    async with bench.sessions.begin() as session:
        await Endpoints(session).add("nobody", "http://127.0.0.1:1/hook", SECRET)
    await bench.client.enqueue(a_letter(), notify="nobody")

    failed = await deliver(bench)

    assert failed.state == "queued"
    assert failed.errors[-1]["error"] == "WebhookFailedError"
    assert "no answer (ConnectError)" in failed.errors[-1]["message"]


async def test_what_waits_for_an_endpoint_that_is_removed_is_cancelled(bench):
    await bench.client.enqueue(a_letter(), notify="shop")
    async with bench.sessions.begin() as session:
        await Endpoints(session).remove("shop")

    assert (await deliver(bench)).result == {"reason": "the endpoint was removed"}


async def test_after_a_rotation_both_secrets_sign(bench, receiver):
    newer = new_secret()
    async with bench.sessions.begin() as session:
        assert await Endpoints(session).rotate("shop", newer)
    await bench.client.enqueue(a_letter(), notify="shop")
    await deliver(bench)

    [came] = receiver.requests
    sent_at = datetime.fromtimestamp(int(came.headers["webhook-timestamp"]), UTC)
    expected = headers_of(came.headers["webhook-id"], sent_at, came.body, [newer, SECRET])
    assert came.headers["webhook-signature"] == expected["webhook-signature"]
