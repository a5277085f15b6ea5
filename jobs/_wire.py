"""Redis' layout: key names, job ids, bodies, and how a job is put there, found and aborted.

It is arq's own layout, with JSON in place of pickle; docs/wire.md has it byte for byte. Only this
module and `worker.loop`, which is useful without it, know it. Nothing here imports arq or redis.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4, uuid5

from pydantic_core import to_json

from ._registry import may_be_personal

if TYPE_CHECKING:
    from redis.asyncio import Redis

QUEUE: Final = "arq:queue"
JOB_PREFIX: Final = "arq:job:"
RESULT_PREFIX: Final = "arq:result:"
IN_PROGRESS_PREFIX: Final = "arq:in-progress:"
ABORTS: Final = "arq:abort"
BELL_SUFFIX: Final = ":bell"
"""An idle worker waits for it: see docs/loop.md."""
PROGRESS_PREFIX: Final = "teller:progress:"

JOB_ID_NAMESPACE: Final = UUID("7e11e200-0000-5000-8000-6a6f62696473")

BODY_KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long Redis keeps the body of a job in PostgreSQL after the job is due."""
KEPT_UNTIL_ENDED: Final = 0
"""A job that Redis alone has must not expire: its body is deleted when the job ends."""

JOBS_PER_CALL_MAX: Final = 500
"""Every other client of Redis waits while one script runs."""

# KEYS: queue, bell. ARGV: two key prefixes, then per job: id, body, run_at_ms, kept_ms.
# A job that Redis has already is left as it is: its body may have been read, its score may be a
# lease. The queue entry is made even if the body is there, which repairs half of a job.
#
# A job with an expiry is in PostgreSQL, which knows whether it has run: a kept result does not stop
# it. Returns whether the queue lacked it. A job without one is in Redis alone, so a kept result is
# the job itself. Returns the body or the result that was there, '' if neither.
_PUT: Final = """
local replies = {}
for i = 3, #ARGV, 4 do
  local id, body, run_at_ms, kept_ms = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
  local body_key, result_key = ARGV[1] .. id, ARGV[2] .. id
  if kept_ms ~= '0' then
    redis.call('SET', body_key, body, 'NX', 'PX', kept_ms)
    replies[#replies + 1] = redis.call('ZADD', KEYS[1], 'NX', run_at_ms, id)
  else
    local existing = redis.call('GET', body_key)
    local result = not existing and redis.call('GET', result_key)
    if not result then
      redis.call('SET', body_key, body, 'NX')
      redis.call('ZADD', KEYS[1], 'NX', run_at_ms, id)
    end
    replies[#replies + 1] = existing or result or ''
  end
end
redis.call('ZADD', KEYS[2], 0, 'ring')
return replies
"""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job as it stands in the queue."""

    id: str
    kind: str
    payload_json: str | None = None
    """None: the worker reads the payload in PostgreSQL, by the id."""
    run_at_ms: int | None = None
    """Unix milliseconds before which it does not run; None for now."""
    enqueued_at_ms: int | None = None
    """Unix milliseconds at which it was accepted; None for now."""


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis has of one job."""

    result: bytes | str | None
    running: bool
    run_at_ms: float | None
    """Its score in the queue; None if the queue does not have it."""
    has_body: bool


def job_id_of(redis_id: str) -> UUID:
    """Return the job's id in PostgreSQL: its id in Redis if that is a UUID, else its uuid5."""
    try:
        return UUID(redis_id)
    except ValueError:
        return uuid5(JOB_ID_NAMESPACE, redis_id)


def redis_id_of(kind: str, key: str | None) -> str:
    """Return the id of a new job in Redis: `kind:key`, so that a key is one job of its kind."""
    return str(uuid4()) if key is None else f"{kind}:{key}"


def result_key(redis_id: str) -> str:
    """Return the key under which arq keeps a job's result."""
    return RESULT_PREFIX + redis_id


def progress_key(job_id: UUID) -> str:
    """Return the key under which a running job says how far it is."""
    return f"{PROGRESS_PREFIX}{job_id}"


def milliseconds(at: datetime) -> int:
    """Return a time as Redis has it: Unix milliseconds."""
    return round(at.timestamp() * 1000)


def queued_job(
    redis_id: str,
    kind: str,
    payload_json: str | None,
    run_at: datetime | None,
    enqueued_at: datetime | None = None,
) -> QueuedJob:
    """Return a job of PostgreSQL's as it is sent: by id alone if its payload may be personal.

    Or if `payload_json` is None, because it is too large to be sent along.
    """
    return QueuedJob(
        id=redis_id,
        kind=kind,
        payload_json=None if may_be_personal(kind) else payload_json,
        run_at_ms=None if run_at is None else milliseconds(run_at),
        enqueued_at_ms=None if enqueued_at is None else milliseconds(enqueued_at),
    )


async def put(redis: "Redis", jobs: Sequence[QueuedJob], queue_name: str = QUEUE) -> int:
    """Queue jobs that PostgreSQL has, and wake a worker; return how many the queue lacked.

    One round trip for any number of them, and safe to repeat. A result that Redis still keeps for
    the same id does not stop a job, as it would in arq's `enqueue_job`.

    Raises:
        redis.exceptions.RedisError: Redis is away; some may be queued.
    """
    now_ms = _now_ms()
    rows = [_row(job, now_ms, max((job.run_at_ms or 0) - now_ms, 0) + BODY_KEPT_MS) for job in jobs]
    return sum(await _put(redis, rows, queue_name))


async def create(
    redis: "Redis", jobs: Sequence[QueuedJob], queue_name: str = QUEUE
) -> list[bytes | str | None]:
    """Queue jobs that Redis alone will have, and wake a worker.

    One round trip for any number of them, and safe to repeat.

    Returns:
        Per job the body or the result that is there under its id; None where it was created.

    Raises:
        redis.exceptions.RedisError: Redis is away; some may be queued.
    """
    now_ms = _now_ms()
    replies = await _put(redis, [_row(job, now_ms, KEPT_UNTIL_ENDED) for job in jobs], queue_name)
    return [reply or None for reply in replies]


async def find(redis: "Redis", redis_id: str, queue_name: str = QUEUE) -> Found:
    """Return what Redis has of a job, at one moment."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.get(result_key(redis_id))
        pipe.exists(IN_PROGRESS_PREFIX + redis_id)
        pipe.zscore(queue_name, redis_id)
        pipe.exists(JOB_PREFIX + redis_id)
        result, running, run_at_ms, has_body = await pipe.execute()
    return Found(result, bool(running), run_at_ms, bool(has_body))


async def abort(redis: "Redis", redis_ids: Collection[str], queue_name: str = QUEUE) -> None:
    """Ask the workers to abort jobs, as arq's own client does."""
    if not redis_ids:
        return
    async with redis.pipeline(transaction=True) as pipe:
        pipe.zadd(ABORTS, dict.fromkeys(redis_ids, _now_ms()))
        # A job that waits is brought forward: a worker that claims it then sees the request.
        pipe.zadd(queue_name, dict.fromkeys(redis_ids, 1), xx=True)
        await pipe.execute()


_Row = tuple[str, str, int, int]


def _row(job: QueuedJob, now_ms: int, kept_ms: int) -> _Row:
    run_at_ms = now_ms if job.run_at_ms is None else job.run_at_ms
    return job.id, _body(job, now_ms), run_at_ms, kept_ms


def _body(job: QueuedJob, now_ms: int) -> str:
    """Return the job as arq's workers read it: `arq.jobs.serialize_job`, in JSON."""
    enqueued_at_ms = now_ms if job.enqueued_at_ms is None else job.enqueued_at_ms
    kind = to_json(job.kind).decode()
    return f'{{"t":null,"f":{kind},"a":[{job.payload_json or ""}],"k":{{}},"et":{enqueued_at_ms}}}'


async def _put(redis: "Redis", rows: Sequence[_Row], queue_name: str) -> list[Any]:
    calls = list(_calls(rows, queue_name))
    if not calls:
        return []
    if len(calls) == 1:
        return list(await redis.execute_command(*calls[0]))  # type: ignore[no-untyped-call]
    async with redis.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call)
        return [reply for replies in await pipe.execute() for reply in replies]


def _calls(rows: Sequence[_Row], queue_name: str) -> Iterator[tuple[Any, ...]]:
    for start in range(0, len(rows), JOBS_PER_CALL_MAX):
        arguments = [part for row in rows[start : start + JOBS_PER_CALL_MAX] for part in row]
        keys = (queue_name, queue_name + BELL_SUFFIX)
        yield ("EVAL", _PUT, len(keys), *keys, JOB_PREFIX, RESULT_PREFIX, *arguments)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
