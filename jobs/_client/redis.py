"""Jobs through Redis alone, in arq's own layout and in JSON. See docs/wire.md."""

from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from .._errors import KeyConflictError
from .._wire import QueuedJob, create, milliseconds, redis_id_of
from .request import CheckedRequest, Enqueued

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis


async def enqueue_in_redis(
    redis: "Redis", queue_name: str, requests: "Sequence[CheckedRequest]"
) -> list[Enqueued]:
    """Put jobs into the queue; a key that occurs twice is one job.

    Raises:
        KeyConflictError: a key belongs to a job with another payload; the others are queued.
        redis.exceptions.RedisError: Redis is away; asking again with the same keys is safe.
    """
    jobs = [_queued(request) for request in requests]
    existing = await create(redis, jobs, queue_name)
    for job, request, found in zip(jobs, requests, existing, strict=True):
        if found is not None and not _is_same(request, found):
            raise KeyConflictError(
                f"job {job.id} already has this key with another payload: "
                "use a new key for a new payload"
            )
    return [
        Enqueued(job.id, created=found is None) for job, found in zip(jobs, existing, strict=True)
    ]


def _queued(request: CheckedRequest) -> QueuedJob:
    return QueuedJob(
        id=redis_id_of(request.kind, request.key),
        kind=request.kind,
        payload_json=request.payload_json,
        run_at_ms=None if request.run_at is None else milliseconds(request.run_at),
    )


def _is_same(request: CheckedRequest, found: "bytes | str") -> bool:
    """Compare with the body or result that Redis has, where it is JSON; a pickle is left alone."""
    try:
        stored: Any = from_json(found)
        kind, arguments = stored["f"], stored["a"]
    except (ValueError, LookupError, TypeError):
        return True
    if kind != request.kind or not isinstance(arguments, list) or len(arguments) != 1:
        return True
    return bool(arguments[0] == from_json(request.payload_json))
