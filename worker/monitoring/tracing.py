"""OpenTelemetry spans, as an extra: `pip install opentelemetry-sdk`, and nothing else changes.

A delivery is one span, `process <kind>`, linked to the span that enqueued the job: a link and not
a parent, as the messaging conventions have it, since a job may run many times, and days later.
Without the package, or without anybody who collects spans, `create_tracing` returns None.
"""

import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from db.execution import Record
from worker.monitoring.heartbeat import code_version

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from uuid import UUID

    from opentelemetry.trace import Link, Tracer
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from db.execution import JobRef
    from worker.monitoring.events import Events

SCOPE: Final = "teller.worker"
SYSTEM: Final = "arq"
FAILURES: Final = {"job.failed", "job.dead"}
STEPS: Final = {"job.run_again", "job.put_back", "job.unrecorded", *FAILURES}
TRACED: Final = {"job.finished", "job.duplicate", *STEPS}


def create_tracing(
    sessions: "async_sessionmaker[AsyncSession]", events: "Events"
) -> "Tracing | None":
    """Return what makes the spans, listening to `events`; None where nobody collects spans."""
    if not _is_wanted():
        return None
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    version = code_version()
    _provide_if_asked(version)
    provider = trace.get_tracer_provider()
    if type(provider).__name__ in {"ProxyTracerProvider", "NoOpTracerProvider"}:
        return None
    tracing = Tracing(provider.get_tracer(SCOPE, version), sessions)
    events.subscribe(tracing.note)
    return tracing


def _is_wanted() -> bool:
    """Return whether there can be a provider: somebody set one, or the environment names one."""
    return "opentelemetry.trace" in sys.modules or any(
        name.startswith("OTEL_") for name in os.environ
    )


def _provide_if_asked(version: str) -> None:
    """Export by OTLP if the environment says where to, and nobody has set a provider before."""
    if not (
        os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
        or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    ):
        return
    from opentelemetry import trace

    if type(trace.get_tracer_provider()).__name__ != "ProxyTracerProvider":
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over these.
    resource = Resource.create({"service.name": "teller", "service.version": version})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


class Tracing:
    """Makes a span of every delivery. Subscribe `note` to the events."""

    def __init__(self, tracer: "Tracer", sessions: "async_sessionmaker[AsyncSession]") -> None:
        self._tracer = tracer
        self._sessions = sessions

    @asynccontextmanager
    async def observe(self, job: "JobRef", try_number: int) -> "AsyncIterator[None]":
        """Open the span of one delivery, linked to the span that enqueued the job."""
        from opentelemetry.trace import SpanKind

        traceparent = await self._traceparent_of(job.id)
        kind = job.kind
        with self._tracer.start_as_current_span(
            f"process {kind}",
            kind=SpanKind.CONSUMER,
            links=_links(traceparent),
            attributes={
                "messaging.system": SYSTEM,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": kind,
                "messaging.message.id": str(job.id),
                "teller.job.try": try_number,
            },
            record_exception=False,  # its message could quote a payload
            set_status_on_exception=False,
        ):
            yield

    async def _traceparent_of(self, job_id: "UUID") -> str | None:
        """Return the trace context that the job was accepted with; never raises."""
        try:
            async with self._sessions() as session:
                return await Record(session).traceparent(job_id)
        except Exception:  # noqa: BLE001 - a span without its link is better than a job not run
            return None

    def note(self, name: str, fields: dict[str, Any]) -> None:
        """Put an event about a job into the span that is open around it."""
        if name not in TRACED:
            return
        from opentelemetry import trace
        from opentelemetry.trace import Status, StatusCode

        span = trace.get_current_span()
        if not span.is_recording():
            return
        if name in STEPS:
            known = {key: fields[key] for key in ("trouble", "sqlstate") if fields.get(key)}
            span.add_event(name, known)
        if name in FAILURES:
            error = fields.get("sqlstate") or fields.get("trouble", "dead")
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR))
        outcome = {"job.dead": "dead", "job.duplicate": "duplicate"}.get(name, fields.get("state"))
        if outcome:
            span.set_attribute("teller.job.outcome", outcome)


def _links(traceparent: str | None) -> "list[Link]":
    """Return the link to the caller's span; a context that is not one is ignored."""
    if not traceparent:
        return []
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = TraceContextTextMapPropagator().extract({"traceparent": traceparent})
    caller = trace.get_current_span(context).get_span_context()
    return [trace.Link(caller)] if caller.is_valid else []
