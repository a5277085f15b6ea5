"""Redis' layout: key names, job ids, bodies, and how a job is put there, found and aborted.

It is arq's own layout, with JSON in place of pickle; docs/wire.md has it byte for byte. Only this
module and `worker.loop`, which is useful without it, know it. Nothing here imports arq or redis.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4, uuid5

from pydantic_core import to_json

from ._queue import DEFAULT, QUEUE, queue_key
from ._registry import may_be_personal, queues

if TYPE_CHECKING:
    from redis.asyncio import Redis

JOB_PREFIX: Final = "arq:job:"
RESULT_PREFIX: Final = "arq:result:"
IN_PROGRESS_PREFIX: Final = "arq:in-progress:"
ABORTS: Final = "arq:abort"
BELL_SUFFIX: Final = ":bell"
"""An idle worker waits for it: see docs/loop.md."""
PROGRESS_PREFIX: Final = "teller:progress:"

JOB_ID_NAMESPACE: Final = UUID("7e11e200-0000-5000-8000-6a6f62696473")

BODY_KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long Redis keeps the body of a job in PostgreSQL, counted from when the job is due."""
KEPT_UNTIL_ENDED: Final = 0
"""A job that Redis alone has must not expire: its body is deleted when the job ends."""

JOBS_PER_CALL_MAX: Final = 500
"""Every other client of Redis waits while one script runs."""

# KEYS: queue, bell. ARGV: two key prefixes, then per job: id, the body up to the value of its `et`,
# that value ('' for now), run_at_ms, delay_ms (both '' for now), and how long the body is kept.
# "Now" is this server's, and no client's: of clocks that disagree only one counts.
#
# A job that Redis has already is left as it is: its body may have been read. Only its time is
# brought forward to the one that PostgreSQL has, if that is sooner, since a pause may have ended;
# where its score was a lease, the next claim sees that and puts it back. The queue entry is made
# even if the body is there, which repairs half of a job.
#
# A job with an expiry is in PostgreSQL, which knows whether it has run: a kept result does not stop
# it. Returns whether the queue lacked it. A job without one is in Redis alone, so a kept result is
# the job itself. Returns the body or the result that was there, '' if neither.
#
# The ring may fail, where somebody made the bell of another type: the jobs are queued all the same.
_PUT: Final = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
local function text_of(ms) return string.format('%.0f', ms) end
local replies = {}
for i = 3, #ARGV, 6 do
  local id, body, kept_ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 5])
  body = body .. (ARGV[i + 2] == '' and text_of(now_ms) or ARGV[i + 2]) .. '}'
  local run_at_ms = tonumber(ARGV[i + 3]) or now_ms + (tonumber(ARGV[i + 4]) or 0)
  local body_key, result_key = ARGV[1] .. id, ARGV[2] .. id
  if kept_ms > 0 then
    kept_ms = kept_ms + math.max(run_at_ms - now_ms, 0)
    redis.call('SET', body_key, body, 'NX', 'PX', text_of(kept_ms))
    replies[#replies + 1] = redis.call('ZADD', KEYS[1], 'LT', text_of(run_at_ms), id)
  else
    local existing = redis.call('GET', body_key)
    local result = not existing and redis.call('GET', result_key)
    if not result then
      redis.call('SET', body_key, body, 'NX')
      redis.call('ZADD', KEYS[1], 'NX', text_of(run_at_ms), id)
    end
    replies[#replies + 1] = existing or result or ''
  end
end
redis.pcall('ZADD', KEYS[2], 0, 'ring')
return replies
"""

# KEYS: aborts, then the queues that may have the jobs. ARGV: ids. A request in the future, by a
# client's clock, would be deleted by a worker. A job that waits is brought forward: a worker that
# claims it then sees the request.
_ABORT: Final = """
local time = redis.call('TIME')
local now_ms = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
for _, id in ipairs(ARGV) do
  redis.call('ZADD', KEYS[1], now_ms, id)
  for i = 2, #KEYS do
    redis.call('ZADD', KEYS[i], 'XX', 1, id)
  end
end
"""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job as it stands in the queue."""

    id: str
    kind: str
    payload_json: str | None = None
    """None: the worker reads the payload in PostgreSQL, by the id."""
    run_at_ms: int | None = None
    """Unix milliseconds before which it does not run; None for now, or for after its delay."""
    delay_ms: int | None = None
    """How long from now it does not run, by Redis' clock."""
    enqueued_at_ms: int | None = None
    """Unix milliseconds at which it was accepted; None for now, by Redis' clock."""
    queue: str = DEFAULT
    """The name of the queue that it waits in."""


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis has of one job."""

    result: bytes | str | None
    running: bool
    run_at_ms: float | None
    """Its score in the queue; None if the queue does not have it."""
    has_body: bool
    now_ms: float
    """When this was so, by Redis' clock."""

    @property
    def is_waiting(self) -> bool:
        """Whether it is queued or running."""
        return self.running or self.has_body or self.run_at_ms is not None

    @property
    def is_known(self) -> bool:
        """Whether Redis has anything of it."""
        return self.is_waiting or self.result is not None


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


def queued_job(  # noqa: PLR0913 - what is sent of a job
    redis_id: str,
    kind: str,
    payload_json: str | None,
    run_at: datetime | None,
    enqueued_at: datetime | None = None,
    *,
    queue: str = DEFAULT,
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
        queue=queue,
    )


def rejected_answer(rejection: dict[str, Any]) -> dict[str, Any]:
    """Return a rejection as the job's result in Redis."""
    return {"rejected": rejection}


def completed_answer(result: Any) -> Any:  # noqa: ANN401 - any JSON
    """Return a completed job's result as it stands in Redis: itself.

    Only one that looks like a rejection, or like a result that is set apart in this way, is set
    apart: `{"completed": result}`.
    """
    return {"completed": result} if _is_marked(result) else result


def read_answer(answer: Any) -> tuple[bool, Any]:  # noqa: ANN401 - any JSON
    """Return whether an answer in Redis is a rejection, and the rejection or the result."""
    if not _is_marked(answer):
        return False, answer
    if "rejected" in answer:
        return True, answer["rejected"]
    return False, answer["completed"]


def _is_marked(answer: object) -> bool:
    while isinstance(answer, dict) and answer.keys() == {"completed"}:
        answer = answer["completed"]
    if not isinstance(answer, dict) or answer.keys() != {"rejected"}:
        return False
    rejection = answer["rejected"]
    return (
        isinstance(rejection, dict)
        and isinstance(rejection.get("code"), str)
        and rejection.keys() <= {"code", "message"}
    )


async def put(redis: "Redis", jobs: Sequence[QueuedJob], queue_name: str = QUEUE) -> int:
    """Queue jobs that PostgreSQL has, and wake a worker; return how many the queue lacked.

    One round trip for any number of them, and safe to repeat. Each goes into the queue that it
    names; `queue_name` is the key of the queue `default`. A result that Redis still keeps for
    the same id does not stop a job, as it would in arq's `enqueue_job`.

    Raises:
        redis.exceptions.RedisError: Redis is away; some may be queued.
    """
    return sum(await _put(redis, jobs, BODY_KEPT_MS, queue_name))


async def create(
    redis: "Redis", jobs: Sequence[QueuedJob], queue_name: str = QUEUE
) -> list[bytes | str | None]:
    """Queue jobs that Redis alone will have, and wake a worker.

    One round trip for any number of them, and safe to repeat. Queues are as for `put`.

    Returns:
        Per job the body or the result that is there under its id; None where it was created.

    Raises:
        redis.exceptions.RedisError: Redis is away; some may be queued.
    """
    replies = await _put(redis, jobs, KEPT_UNTIL_ENDED, queue_name)
    return [reply or None for reply in replies]


async def find(redis: "Redis", redis_id: str, queue_name: str = QUEUE) -> Found:
    """Return what Redis has of a job, at one moment."""
    async with redis.pipeline(transaction=True) as pipe:
        pipe.get(result_key(redis_id))
        pipe.exists(IN_PROGRESS_PREFIX + redis_id)
        pipe.exists(JOB_PREFIX + redis_id)
        pipe.time()
        for name in queues():
            pipe.zscore(queue_key(name, queue_name), redis_id)
        result, running, has_body, (seconds, microseconds), *scores = await pipe.execute()
    now_ms = seconds * 1000 + microseconds / 1000
    run_at_ms = next((score for score in scores if score is not None), None)
    return Found(result, bool(running), run_at_ms, bool(has_body), now_ms)


async def abort(redis: "Redis", redis_ids: Collection[str], queue_name: str = QUEUE) -> None:
    """Ask the workers to abort jobs, as arq's own client does."""
    if not redis_ids:
        return
    ids = list(redis_ids)
    keys = (ABORTS, *(queue_key(name, queue_name) for name in queues()))
    for start in range(0, len(ids), JOBS_PER_CALL_MAX):
        some = ids[start : start + JOBS_PER_CALL_MAX]
        call = ("EVAL", _ABORT, len(keys), *keys, *some)
        await redis.execute_command(*call)  # type: ignore[no-untyped-call]


_Row = tuple[str | int, ...]


def _row(job: QueuedJob, kept_ms: int) -> _Row:
    times = (job.enqueued_at_ms, job.run_at_ms, job.delay_ms)
    return job.id, _body(job), *("" if time is None else time for time in times), kept_ms


def _body(job: QueuedJob) -> str:
    """Return the job as arq's workers read it (`arq.jobs.serialize_job`, in JSON), up to `et`."""
    kind = to_json(job.kind).decode()
    return f'{{"t":null,"f":{kind},"a":[{job.payload_json or ""}],"k":{{}},"et":'


async def _put(
    redis: "Redis", jobs: Sequence[QueuedJob], kept_ms: int, queue_name: str
) -> list[Any]:
    """Return the script's replies, in the order of the jobs."""
    places: dict[str, list[int]] = {}
    for place, job in enumerate(jobs):
        places.setdefault(job.queue, []).append(place)
    calls = [
        call
        for name, own in places.items()
        for call in _calls([_row(jobs[place], kept_ms) for place in own], queue_name, name)
    ]
    replies = await _execute(redis, calls)
    if len(places) == 1:
        return replies
    order = [place for own in places.values() for place in own]
    return [reply for _, reply in sorted(zip(order, replies, strict=True), key=itemgetter(0))]


async def _execute(redis: "Redis", calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    if not calls:
        return []
    if len(calls) == 1:
        return list(await redis.execute_command(*calls[0]))  # type: ignore[no-untyped-call]
    async with redis.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call)
        return [reply for replies in await pipe.execute() for reply in replies]


def _calls(rows: Sequence[_Row], queue_name: str, name: str) -> Iterator[tuple[Any, ...]]:
    key = queue_key(name, queue_name)
    for start in range(0, len(rows), JOBS_PER_CALL_MAX):
        arguments = [part for row in rows[start : start + JOBS_PER_CALL_MAX] for part in row]
        keys = (key, key + BELL_SUFFIX)
        yield ("EVAL", _PUT, len(keys), *keys, JOB_PREFIX, RESULT_PREFIX, *arguments)
