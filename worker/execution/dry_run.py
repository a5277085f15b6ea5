"""A dry run: the handler runs for real, in a transaction that is rolled back.

A report is built for real as well, but published into a directory that is deleted at once. What a
handler does outside PostgreSQL and its reports cannot be taken back: a job that has such effects
has them in a rehearsal too.
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from db.engine import ONE_MOMENT
from db.store import Store
from jobs import Cancel, Context, Rejected, Snooze, registry
from jobs._reports import Reports
from worker.execution import failures

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from db.operations import Whole
    from jobs import Job


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would become of a job, if it ran now."""

    outcome: str
    """A state of the record; or `snoozed`, `failed`, `unknown kind`."""
    detail: Any

    @property
    def is_good(self) -> bool:
        """Whether the job would get somewhere."""
        return self.outcome in {"completed", "rejected", "cancelled", "snoozed"}


async def rehearse(sessions: "async_sessionmaker[AsyncSession]", row: "Whole") -> Rehearsed:
    """Run a job's handler without effect, and return what it would come to."""
    job = registry().get(row.kind)
    if job is None:
        return Rehearsed("unknown kind", failures.unknown_kind(row.kind).message)
    try:
        payload = job.payload.from_wire(row.payload)
    except ValidationError as error:
        return Rehearsed("failed", {"InvalidPayload": failures.validation_message(error)})
    try:
        with tempfile.TemporaryDirectory(prefix="teller-rehearsal-") as scratch:
            reports = Reports(Path(scratch).as_uri())
            async with asyncio.timeout(job.policy.timeout.total_seconds()):
                return _told(await _perform(sessions, job, payload, row, reports))
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is what we want to see
        failure = failures.describe(error)
        detail = {failure.error: failure.message, "sqlstate": failure.sqlstate}
        return Rehearsed("failed", detail)


async def _perform(
    sessions: "async_sessionmaker[AsyncSession]",
    job: "Job",
    payload: Any,  # noqa: ANN401 - the kind's own
    row: "Whole",
    reports: Reports,
) -> object:
    async with sessions() as session:
        if job.policy.snapshot:
            await session.connection(execution_options=ONE_MOMENT)
        context = Context(
            job_id=row.id,
            try_number=row.attempts + 1,
            enqueued_at=row.enqueued_at,
            store=Store(session),
            reports=reports,
        )
        try:
            return await job.handler(context, payload)
        finally:
            await session.rollback()


def _told(answer: object) -> Rehearsed:
    match answer:
        case Rejected(code, message):
            return Rehearsed("rejected", {"code": code, "message": message})
        case Cancel(reason):
            return Rehearsed("cancelled", {"reason": reason})
        case Snooze(delay):
            return Rehearsed("snoozed", {"delay_s": delay.total_seconds()})
        case BaseModel():
            return Rehearsed("completed", answer.model_dump(mode="json"))
        case _:
            return Rehearsed("completed", None)
