"""Putting jobs into Redis: arq's own layout, in one round trip, with one ring of the doorbell.

The worker's side of the bell, and what another client must do to ring it, is in docs/loop.md.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from arq.constants import default_queue_name, job_key_prefix
from pydantic_core import to_json

if TYPE_CHECKING:
    from redis.asyncio import Redis

BODY_KEPT_MS: Final = 7 * 24 * 3_600_000
"""How long Redis keeps a job's body after the job is due; the record keeps it for longer."""

DELIVERIES_PER_CALL_MAX: Final = 500
"""One script runs while every other client of Redis waits."""

# A job that Redis has already is left as it is: its body may have been read, its score may be a
# lease. The queue entry is made even if the body is there, which heals half of a job.
_PUT: Final = """
local queue, bell, prefix = KEYS[1], KEYS[2], ARGV[1]
local added = 0
for i = 2, #ARGV, 4 do
  redis.call('SET', prefix .. ARGV[i], ARGV[i + 1], 'NX', 'PX', ARGV[i + 3])
  added = added + redis.call('ZADD', queue, 'NX', ARGV[i + 2], ARGV[i])
end
redis.call('ZADD', bell, 0, 'ring')
return added
"""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A job on its way to a worker."""

    id: str
    function: str
    args: Sequence[Any] = ()
    run_at_ms: int | None = None
    """Unix milliseconds before which it does not run; None for now."""
    enqueued_at_ms: int | None = None
    """Unix milliseconds at which it was accepted; None for now."""


async def ring(
    redis: "Redis", deliveries: Sequence[Delivery], queue_name: str = default_queue_name
) -> int:
    """Put jobs into a queue and wake a worker; return how many the queue did not have yet.

    Safe to repeat. A result that Redis still keeps for the same id does not stop the job, as it
    would in `enqueue_job`: whether a job has run is for the record to say.
    """
    calls = list(_calls(deliveries, queue_name))
    if not calls:
        return 0
    if len(calls) == 1:
        return int(await redis.execute_command(*calls[0]))  # type: ignore[no-untyped-call]
    async with redis.pipeline(transaction=False) as pipe:
        for call in calls:
            pipe.execute_command(*call)
        return sum(await pipe.execute())


def _calls(deliveries: Sequence[Delivery], queue_name: str) -> Iterator[tuple[Any, ...]]:
    now_ms = round(time.time() * 1000)
    for start in range(0, len(deliveries), DELIVERIES_PER_CALL_MAX):
        call: list[Any] = ["EVAL", _PUT, 2, queue_name, f"{queue_name}:bell", job_key_prefix]
        for delivery in deliveries[start : start + DELIVERIES_PER_CALL_MAX]:
            due_ms = now_ms if delivery.run_at_ms is None else delivery.run_at_ms
            kept_ms = max(due_ms - now_ms, 0) + BODY_KEPT_MS
            call += (delivery.id, _body(delivery, now_ms), due_ms, kept_ms)
        yield tuple(call)


def _body(delivery: Delivery, now_ms: int) -> bytes:
    """Return the job as arq's workers read it: `arq.jobs.serialize_job`, in JSON."""
    enqueued_at_ms = now_ms if delivery.enqueued_at_ms is None else delivery.enqueued_at_ms
    body: dict[str, Any] = {
        "t": None,
        "f": delivery.function,
        "a": delivery.args,
        "k": {},
        "et": enqueued_at_ms,
    }
    return to_json(body)
