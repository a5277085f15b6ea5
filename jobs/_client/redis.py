"""Jobs through Redis alone, in arq's own layout and in JSON. See docs/wire.md."""

import hashlib
import json
import time
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from .._errors import DoorClosedError, KeyConflictError
from .._registry import queue_of, registry
from .._request import CheckedRequest, Enqueued
from .._wire import QueuedJob, create, milliseconds, redis_id_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

MILLISECOND: Final = timedelta(milliseconds=1)


async def enqueue_in_redis(
    redis: "Redis", queue_name: str, requests: "Sequence[CheckedRequest]"
) -> list[Enqueued]:
    """Put jobs into the queue; a key that occurs twice is one job.

    Raises:
        KeyConflictError: a key belongs to a job with another payload; the others are queued.
        DoorClosedError: the kind replaces payloads, which only PostgreSQL can.
        redis.exceptions.RedisError: Redis is away; asking again with the same keys is safe.
    """
    now_s = time.time()
    jobs = [_queued(request, now_s) for request in requests]
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


def _queued(request: CheckedRequest, now_s: float) -> QueuedJob:
    return QueuedJob(
        id=redis_id_of(request.kind, _key_of(request, now_s)),
        kind=request.kind,
        payload_json=request.payload_json,
        queue=queue_of(request.kind),
        run_at_ms=None if request.run_at is None else milliseconds(request.run_at),
        delay_ms=None if request.delay is None else round(request.delay / MILLISECOND),
    )


def _key_of(request: CheckedRequest, now_s: float) -> str | None:
    """Return the caller's key; or, where the kind is unique for a time, its payload's of now."""
    job = registry().get(request.kind)
    if job is None or job.policy.unique_for is None:
        return request.key
    if job.policy.replace:
        raise DoorClosedError(
            f"a job of kind {request.kind} takes a newer payload in PostgreSQL alone: pass "
            "session=…, or make the Client with `sessions`"
        )
    if request.key is not None:
        return request.key
    window = int(now_s // job.policy.unique_for.total_seconds())
    digest = hashlib.sha256(request.payload_json.encode()).hexdigest()
    return f"unique:{digest}:{window}"


def _is_same(request: CheckedRequest, found: "bytes | str") -> bool:
    """Compare with the body or result that Redis has, where it is JSON; a pickle is left alone."""
    try:
        stored = _read(found)
        kind, arguments = stored["f"], stored["a"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return True
    if kind != request.kind or not isinstance(arguments, list) or len(arguments) != 1:
        return True
    return _is_equal(arguments[0], _read(request.payload_json))


def _read(text: "bytes | str") -> Any:  # noqa: ANN401 - JSON
    """Read JSON without rounding a number."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def _is_equal(one: object, other: object) -> bool:
    """Compare JSON as PostgreSQL's jsonb does: numbers by value, and true is no number."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(
                _is_equal(value, other[key]) for key, value in one.items()
            )
        case list(), list():
            return len(one) == len(other) and all(map(_is_equal, one, other))
    return type(one) is type(other) and one == other
