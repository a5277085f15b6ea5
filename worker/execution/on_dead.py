"""What follows a job's death: the follow-up of `on_dead`, in the transaction that records it.

A death is recorded whatever becomes of its follow-up. Only a server that is not there, or a lock,
puts both off.
"""

from typing import TYPE_CHECKING
from uuid import uuid4

from pydantic import ValidationError

from db.errors import TRANSIENT, diagnose
from jobs import UnknownKindError
from jobs._context import FollowUp
from jobs._request import Request, check
from worker.execution.follow_ups import write_follow_ups

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from db.execution import Failure
    from jobs import Job
    from jobs._wire import QueuedJob
    from worker.execution.delivery import Delivery
    from worker.monitoring.events import Events


async def write_on_dead(  # noqa: PLR0913 - who died of what, and where to say so
    session: "AsyncSession",
    job: "Job | None",
    delivery: "Delivery",
    failure: "Failure",
    *,
    kinds: "Collection[str]",
    events: "Events",
) -> "Sequence[QueuedJob]":
    """Write what a job's policy wants to follow its death; return what to send after the commit."""
    if job is None or job.policy.on_dead is None:
        return []
    try:
        follow_up = _follow_up(job, delivery, failure, kinds)
        if follow_up is None:
            return []
        async with session.begin_nested():
            return await write_follow_ups(session, delivery.job.id, [follow_up])
    except Exception as error:
        if diagnose(error).trouble in TRANSIENT:
            raise
        events.emit(
            "job.on_dead_failed",
            job_id=str(delivery.job.id),
            kind=delivery.job.kind,
            error=type(error).__name__,
        )
        return []


def _follow_up(
    job: "Job", delivery: "Delivery", failure: "Failure", kinds: "Collection[str]"
) -> FollowUp | None:
    """Return what `on_dead` answers; None too where the payload is none of the job's."""
    try:
        payload = job.payload.model_validate_json(delivery.job.payload_json)
    except ValidationError:
        return None
    answer = job.policy.on_dead and job.policy.on_dead(payload, failure)
    if answer is None:
        return None
    if answer.kind not in kinds:
        raise UnknownKindError(f"no job of the kind {answer.kind[:100]!r} is registered")
    # Any id: the row of the job that died is written once.
    return FollowUp(uuid4(), check(Request(answer)))
