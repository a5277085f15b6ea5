"""A dry run: the handler runs for real, in a transaction that is rolled back.

What a handler does outside PostgreSQL goes through the services it is given, so they decide what
becomes of it: those of `jobs._services.open_dry_services` keep nothing.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError

from db.engine import ONE_MOMENT
from jobs import Context, registry
from jobs._payload import validation_message
from worker.execution import failures
from worker.execution.attempts import call_handler
from worker.execution.error_text import describe
from worker.execution.outcome import Answer, Continued, Finished, Later, outcome_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from db.operations import Whole
    from db.store import Store
    from jobs import Job, Payload
    from jobs._services import Services


@dataclass(frozen=True, slots=True)
class Preview:
    """What would become of a job if it ran now."""

    outcome: str
    """A state of the job's row; or `snoozed`, `continued`, `failed`, `not run`, `unknown kind`."""
    detail: Any

    @property
    def is_good(self) -> bool:
        """Whether the job would run without a failure."""
        return self.outcome in {"completed", "rejected", "cancelled", "snoozed", "continued"}


async def dry_run(
    sessions: "async_sessionmaker[AsyncSession]",
    row: "Whole",
    *,
    open_store: "Callable[[AsyncSession], Store]",
    services: "Services",
) -> Preview:
    """Run a job's handler without effect in PostgreSQL, and return what it would come to."""
    job = registry().get(row.kind)
    if job is None:
        return Preview("unknown kind", failures.unknown_kind(row.kind).message)
    if job.policy.effects == "outside":
        return Preview("not run", "its effects are outside, and could not be taken back")
    try:
        payload = job.payload.from_wire(row.payload)
    except ValidationError as error:
        return Preview("failed", {"InvalidPayload": validation_message(error)})
    try:
        async with sessions() as session:
            context = Context(
                job_id=row.id,
                try_number=row.attempts + 1,
                enqueued_at=row.enqueued_at,
                store=open_store(session),
                services=services,
                cursor=row.cursor,
                slices=row.slices,
                kinds=registry(),
            )
            answer = await _call_and_roll_back(session, job, context, payload)
        return _preview(outcome_of(answer))
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is what the caller wants
        failure = describe(error)
        detail = {failure.error: failure.message, "sqlstate": failure.sqlstate}
        return Preview("failed", detail)


async def _call_and_roll_back(
    session: "AsyncSession", job: "Job", context: Context, payload: "Payload"
) -> object:
    if job.policy.snapshot:
        await session.connection(execution_options=ONE_MOMENT)
    try:
        return await call_handler(job, context, payload)
    finally:
        await session.rollback()


def _preview(outcome: Answer) -> Preview:
    match outcome:
        case Finished(state, result):
            return Preview(state, result)
        case Continued(cursor_json):
            return Preview("continued", {"cursor": orjson.loads(cursor_json)})
        case Later(delay):
            return Preview("snoozed", {"delay_s": delay.total_seconds()})
