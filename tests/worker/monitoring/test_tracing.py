"""Spans, where somebody collects them: linked from the caller, and with nothing private in them."""

import subprocess
import sys
import uuid
from datetime import UTC, datetime

import orjson
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text

from db.execution import JobRef
from db.store import Store
from tests.letters import SEND_LETTER
from tests.worker.execution.kit import NO_SERVICES
from worker.execution.delivery import Delivery, with_payload
from worker.execution.executor import Executor
from worker.monitoring.events import Events
from worker.monitoring.tracing import Tracing, create_tracing

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PAYLOAD = {"address": "Wilhelmina, wilhelmina@example.com"}


@pytest.fixture
def exporter():
    return InMemorySpanExporter()


@pytest.fixture
def run(sessions, exporter):
    """Run one delivery of a letter, and return its span."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing(provider.get_tracer("test"), sessions)
    executor = Executor(
        *(sessions.kw["bind"], Events(tracing.note)),
        open_store=Store,
        services=NO_SERVICES,
        instrument=tracing.observe,
    )

    async def one(job_id, payload):
        job = JobRef(job_id, "send_letter", "null", datetime.now(UTC))
        delivery = with_payload(Delivery(job, 1), payload)
        await executor.run(SEND_LETTER, delivery)
        return exporter.get_finished_spans()[-1]

    return one


async def accept(sessions, payload, traceparent):
    async with sessions() as session, session.begin():
        return await session.scalar(
            text(
                "SELECT id FROM accept_job('send_letter', CAST(:payload AS jsonb), NULL, NULL, "
                "NULL, :traceparent)"
            ),
            {"payload": payload, "traceparent": traceparent},
        )


def unique():
    return {"address": uuid.uuid4().hex}


async def test_a_run_is_a_consumer_span_linked_to_whoever_enqueued_it(sessions, run):
    payload = unique()
    job_id = await accept(sessions, orjson.dumps(payload).decode(), f"00-{TRACE}-{SPAN}-01")

    span = await run(job_id, payload)

    assert (span.name, span.kind) == ("process send_letter", SpanKind.CONSUMER)
    [link] = span.links
    assert f"{link.context.trace_id:032x}" == TRACE
    assert f"{link.context.span_id:016x}" == SPAN
    assert span.parent is None
    assert dict(span.attributes) == {
        "messaging.system": "arq",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "send_letter",
        "messaging.message.id": str(job_id),
        "teller.job.try": 1,
        "teller.job.outcome": "completed",
    }


@pytest.mark.parametrize("context", [None, "", "not-a-context", f"00-{'0' * 32}-{SPAN}-01"])
async def test_a_job_without_a_context_or_with_a_bad_one_has_no_link(sessions, run, context):
    payload = unique()
    job_id = await accept(sessions, orjson.dumps(payload).decode(), context)

    assert (await run(job_id, payload)).links == ()


async def test_a_job_that_came_by_redis_alone_has_a_span_all_the_same(run):
    assert (await run(uuid.uuid4(), unique())).attributes["teller.job.outcome"] == "completed"


async def test_a_job_that_dies_is_an_error_without_its_payload(run):
    span = await run(uuid.uuid4(), {**PAYLOAD, "password": "swordfish"})

    assert span.status.status_code is StatusCode.ERROR
    assert span.attributes["teller.job.outcome"] == "dead"
    assert span.attributes["error.type"] == "dead"
    told = span.to_json().lower()
    assert [s for s in ("wilhelmina", "example.com", "swordfish") if s in told] == []


def test_where_nobody_collects_spans_there_is_no_tracing(sessions):
    assert create_tracing(sessions, Events()) is None


@pytest.mark.slow
def test_without_the_package_the_worker_works_and_never_looks_for_it_again():
    program = """
import sys
sys.modules["opentelemetry"] = None
from worker.monitoring.events import Events
from worker.monitoring.tracing import create_tracing
import worker.app
assert create_tracing(None, Events()) is None
print([name for name in sys.modules if name.startswith("opentelemetry")])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "['opentelemetry']"
