"""Door 3: jobs straight into Redis, in arq's own layout and in JSON. See docs/wire.md."""

from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from .._errors import KeyConflictError
from .._parse import payload_json
from .._wire import QueuedJob, create, milliseconds, redis_id_of
from .sql import checked_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from .sql import Wish


async def offer_to(
    redis: "Redis", queue_name: str, wishes: "Sequence[Wish]"
) -> list[tuple[str, bool]]:
    """Put jobs into the queue; return each one's id in Redis, and whether it is new.

    Raises:
        KeyConflictError: a key belongs to a job with another payload; the others are queued.
        redis.exceptions.RedisError: Redis is away; asking again with the same keys is safe.
    """
    ids = [redis_id_of(wish.payload.kind, checked_key(wish.key)) for wish in wishes]
    jobs = [_queued(job_id, wish) for job_id, wish in zip(ids, wishes, strict=True)]
    answers = await create(redis, jobs, queue_name)
    for job_id, wish, there in zip(ids, wishes, answers, strict=True):
        if there and not _is_same(wish, there):
            raise KeyConflictError(
                f"job {job_id} already has this key with another payload: "
                "use a new key for a new payload"
            )
    return [(job_id, not there) for job_id, there in zip(ids, answers, strict=True)]


def _queued(job_id: str, wish: "Wish") -> QueuedJob:
    return QueuedJob(
        id=job_id,
        kind=wish.payload.kind,
        payload_json=payload_json(wish.payload),
        run_at_ms=None if wish.run_at is None else milliseconds(wish.run_at),
    )


def _is_same(wish: "Wish", there: "bytes | str") -> bool:
    """Compare with what is there, as far as that can be read: a pickle is left alone."""
    try:
        found: Any = from_json(there)
        kind, arguments = found["f"], found["a"]
    except (ValueError, LookupError, TypeError):
        return True
    if kind != wish.payload.kind or not isinstance(arguments, list) or len(arguments) != 1:
        return True
    return bool(arguments[0] == wish.payload.to_wire())
