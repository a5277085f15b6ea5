"""Door 3: jobs straight into Redis, in arq's own layout and in JSON. See docs/wire.md."""

import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4, uuid5

from pydantic_core import from_json, to_json

from .._errors import KeyConflictError
from .._parse import payload_json
from .sql import checked_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis

    from .sql import Wish

# The record's id of a job whose Redis id is not a UUID; the worker computes the same.
JOB_ID_NAMESPACE: Final = UUID("7e11e200-0000-5000-8000-6a6f62696473")

QUEUE: Final = "arq:queue"
JOB_PREFIX: Final = "arq:job:"
RESULT_PREFIX: Final = "arq:result:"
IN_PROGRESS_PREFIX: Final = "arq:in-progress:"
ABORTS: Final = "arq:abort"
BELL_SUFFIX: Final = ":bell"

BATCH_MAX: Final = 1_000
"""Jobs per call: other clients of Redis wait while it runs."""

# KEYS: queue, bell. ARGV: now_ms, then per job: id, body, run_at_ms.
# Returns per job '' where it is new, else the body or the result that is there. A body does not
# expire: it is deleted when the job ends, and until then it is the job.
OFFER: Final = """
local answers, due = {}, false
for i = 2, #ARGV, 3 do
  local id, body, run_at = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local there = redis.call('GET', 'arq:job:' .. id) or redis.call('GET', 'arq:result:' .. id)
  if not there then
    redis.call('SET', 'arq:job:' .. id, body)
    redis.call('ZADD', KEYS[1], run_at, id)
    due = due or tonumber(run_at) <= tonumber(ARGV[1])
  end
  answers[#answers + 1] = there or ''
end
if due then
  redis.call('ZADD', KEYS[2], 0, 'ring')
end
return answers
"""


def job_id_of(redis_id: str) -> UUID:
    """Return the record's id for an id in Redis: itself if it is a UUID, else its uuid5."""
    try:
        return UUID(redis_id)
    except ValueError:
        return uuid5(JOB_ID_NAMESPACE, redis_id)


def redis_id_of(kind: str, key: str | None) -> str:
    """Return the arq job id of a new job: `kind:key`, so that a key is one job of its kind."""
    return str(uuid4()) if key is None else f"{kind}:{key}"


async def offer_to(
    redis: "Redis", queue_name: str, wishes: "Sequence[Wish]"
) -> list[tuple[str, bool]]:
    """Put jobs into the queue; return each one's id in Redis, and whether it is new.

    Raises:
        KeyConflictError: a key belongs to a job with another payload; the others are queued.
        redis.exceptions.RedisError: Redis is away; asking again with the same keys is safe.
    """
    script = redis.register_script(OFFER)
    now_ms = time.time_ns() // 1_000_000
    ids = [redis_id_of(wish.payload.kind, checked_key(wish.key)) for wish in wishes]
    rows = [_row(job_id, wish, now_ms) for job_id, wish in zip(ids, wishes, strict=True)]
    answers: list[bytes | str] = []
    for start in range(0, len(rows), BATCH_MAX):
        arguments = [now_ms, *(part for row in rows[start : start + BATCH_MAX] for part in row)]
        keys = [queue_name, queue_name + BELL_SUFFIX]
        answers += await script(keys=keys, args=arguments)
    for job_id, wish, there in zip(ids, wishes, answers, strict=True):
        if there and not _is_same(wish, there):
            raise KeyConflictError(
                f"job {job_id} already has this key with another payload: "
                "use a new key for a new payload"
            )
    return [(job_id, not there) for job_id, there in zip(ids, answers, strict=True)]


def _row(job_id: str, wish: "Wish", now_ms: int) -> tuple[str, str, int]:
    payload = payload_json(wish.payload)
    kind = to_json(wish.payload.kind).decode()
    body = f'{{"t":null,"f":{kind},"a":[{payload}],"k":{{}},"et":{now_ms}}}'
    run_at_ms = now_ms if wish.run_at is None else int(wish.run_at.timestamp() * 1000)
    return job_id, body, run_at_ms


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
