"""What a handler enqueued: written in its job's transaction, and sent after the commit."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid5

from db.dispatch import SENT_WHOLE_BYTES_MAX
from db.enqueue import Accepted, FollowUp, NewBatch, accept_batch, accept_follow_ups
from jobs._wire import QueuedJob, queued_job

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

    from jobs import _context
    from jobs._request import CheckedRequest

SENT_AHEAD: Final = timedelta(minutes=1)
"""A job that is due later than this is left to the relay."""


async def write_follow_ups(
    session: "AsyncSession", parent: "UUID", enqueued: "Sequence[_context.FollowUp]"
) -> list[QueuedJob]:
    """Write follow-ups in the parent's transaction, and return what to send after its commit."""
    wanted = [_row(one) for one in enqueued]
    return _to_send(wanted, await accept_follow_ups(session, parent, wanted))


async def open_batches(
    session: "AsyncSession", parent: "UUID", opened: "Sequence[_context.NewBatch]"
) -> list[QueuedJob]:
    """Open batches in the parent's transaction, and return what to send after its commit."""
    to_send: list[QueuedJob] = []
    for batch in map(_batch, opened):
        to_send += _to_send(batch.members, await accept_batch(session, parent, batch))
    return to_send


def _to_send(wanted: "Sequence[FollowUp]", created: "Mapping[UUID, Accepted]") -> list[QueuedJob]:
    """Return those that are new and due soon."""
    soon = datetime.now(UTC) + SENT_AHEAD
    return [
        _queued(one, job)
        for one in wanted
        if (job := created.get(one.id)) and (job.run_at is None or job.run_at < soon)
    ]


def _batch(one: "_context.NewBatch") -> NewBatch:
    then = one.then
    return NewBatch(
        id=one.id,
        members=[
            _member(uuid5(one.id, str(position)), request)
            for position, request in enumerate(one.members)
        ],
        then_kind=None if then is None else then.kind,
        then_payload_json=None if then is None else then.payload_json,
        then_notify=None if then is None else then.notify,
        key=one.key,
        on_dead=one.on_dead,
        traceparent=None if then is None else then.traceparent,
    )


def _row(one: "_context.FollowUp") -> FollowUp:
    return replace(_member(one.id, one.request), in_batch=one.in_batch)


def _member(job_id: "UUID", request: "CheckedRequest") -> FollowUp:
    return FollowUp(
        id=job_id,
        kind=request.kind,
        payload_json=request.payload_json,
        key=request.key,
        run_at=request.run_at,
        delay=request.delay,
        traceparent=request.traceparent,
    )


def _queued(one: FollowUp, job: Accepted) -> QueuedJob:
    payload_json = one.payload_json if len(one.payload_json) <= SENT_WHOLE_BYTES_MAX else None
    return queued_job(str(one.id), one.kind, payload_json, job.run_at, queue=job.queue)
