"""What a handler enqueued: written in its job's transaction, and sent after the commit."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from db.dispatch import SENT_WHOLE_BYTES_MAX
from db.enqueue import FollowUp, accept_follow_ups
from jobs._wire import QueuedJob, queued_job

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from jobs import _context

SENT_AHEAD: Final = timedelta(minutes=1)
"""A job that is due later than this is left to the relay."""


async def write_follow_ups(
    session: "AsyncSession", parent: "UUID", enqueued: "Sequence[_context.FollowUp]"
) -> list[QueuedJob]:
    """Write follow-ups in the parent's transaction, and return what to send after its commit."""
    wanted = {one.id: _row(one) for one in enqueued}
    created = await accept_follow_ups(session, parent, list(wanted.values()))
    soon = datetime.now(UTC) + SENT_AHEAD
    return [
        _queued(wanted[job_id], run_at)
        for job_id, run_at in created.items()
        if run_at is None or run_at < soon
    ]


def _row(one: "_context.FollowUp") -> FollowUp:
    request = one.request
    return FollowUp(
        id=one.id,
        kind=request.kind,
        payload_json=request.payload_json,
        key=request.key,
        run_at=request.run_at,
        delay=request.delay,
        traceparent=request.traceparent,
    )


def _queued(one: FollowUp, run_at: datetime | None) -> QueuedJob:
    is_small = len(one.payload_json) <= SENT_WHOLE_BYTES_MAX
    return queued_job(str(one.id), one.kind, one.payload_json if is_small else None, run_at)
