"""What arq delivered: the job, its payload as PostgreSQL can keep it, and its number."""

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from db.execution import JobRef
from jobs._payload import PAYLOAD_BYTES_MAX, has_nul
from jobs._queue import DEFAULT
from jobs._wire import job_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from db.execution import Stored
    from worker.loop.slots import Slot

QUEUE_NAMES: Final = "teller_queues"
"""The names of the queues that the worker serves, by their keys in Redis: their place in ctx.

Under arq's stock loop, which does not say where a job came from, the key is None.
"""
PAYLOAD_KEPT_BYTES_MAX: Final = 16 * 1024 * 1024
WAIT_MAX_S: Final = 366 * 24 * 3600.0
"""A job that seems to have waited longer has times that nobody meant."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one job to this worker."""

    job: JobRef
    try_number: int
    wait_s: float = 0.0
    """Seconds from when the job became runnable to when this worker took it."""
    started_at: float = field(default_factory=time.monotonic)
    by_id: bool = False
    """Whether only the id was sent, and the payload is in the job's row."""
    fault: str | None = None
    """Why it cannot be run, whatever its kind; the payload is kept all the same."""
    cursor: Any = None
    """Where its slice begins; what the row says, if it was looked at."""
    crashes: int = 0
    """Claims of this job that never ended, because the process died."""
    slot: "Slot | None" = None
    """What it gives away while it waits; None under arq's stock loop."""

    @property
    def needs_its_row(self) -> bool:
        """Whether the row is looked at, or made, before the job runs.

        The first delivery of a job that came with its payload does without: what is there already
        is met at the end.
        """
        return self.by_id or self.try_number > 1 or self.crashes > 0


def read_delivery(
    kind: str, ctx: "Mapping[Any, Any]", args: "Sequence[Any]", kwargs: "Mapping[str, Any]"
) -> Delivery:
    """Return what arq delivered: the payload is the one positional argument, or in the row."""
    # arq's score is the millisecond from which the job may run; "at once" is often one long ago.
    runnable_at = max(ctx["score"] / 1000, ctx["enqueue_time"].timestamp())
    wait_s = round(min(max(0.0, time.time() - runnable_at), WAIT_MAX_S), 6)
    by_id = not args and not kwargs
    text, fault = ("null", None) if by_id else _payload_of(args, kwargs)
    queue = ctx.get(QUEUE_NAMES, {}).get(ctx.get("queue"), DEFAULT)
    job = identify(kind, ctx["job_id"], ctx["enqueue_time"], text, queue=queue)
    return Delivery(
        job,
        ctx["job_try"],
        wait_s=wait_s,
        by_id=by_id,
        fault=fault,
        crashes=ctx.get("crashes", 0),
        slot=ctx.get("slot"),
    )


def resumed(delivery: Delivery, stored: "Stored") -> Delivery:
    """Return a delivery as the job's row has it: while a job is queued, its row is right.

    The payload stays PostgreSQL's own text.
    """
    job = replace(
        delivery.job,
        kind=stored.kind,
        payload_json=stored.payload_json,
        enqueued_at=stored.enqueued_at,
        slices=stored.slices,
    )
    fault = _fault_of_stored(stored.payload_json)
    return replace(delivery, job=job, by_id=False, fault=fault, cursor=stored.cursor)


def identify(
    kind: str,
    redis_id: str,
    enqueued_at: "datetime",
    payload_json: str = "null",
    *,
    queue: str = DEFAULT,
) -> JobRef:
    """Return what identifies the row of a job that came through Redis.

    An id with U+0000 fits no column: should Redis lose that job, it is sent again by its UUID.
    """
    job_id = job_id_of(redis_id)
    return JobRef(
        id=job_id,
        kind=kind,
        payload_json=payload_json,
        enqueued_at=enqueued_at,
        redis_id=None if redis_id == str(job_id) or "\x00" in redis_id else redis_id,
        queue=queue,
    )


def with_payload(delivery: Delivery, raw: object) -> Delivery:
    """Return the delivery with its payload as PostgreSQL can keep it, and its fault."""
    text, fault = _keepable(raw)
    return replace(delivery, job=replace(delivery.job, payload_json=text), fault=fault)


def _payload_of(args: "Sequence[Any]", kwargs: "Mapping[str, Any]") -> tuple[str, str | None]:
    if len(args) == 1 and not kwargs:
        return _keepable(args[0])
    text, fault = _keepable({"args": list(args), "kwargs": dict(kwargs)})
    return text, fault or "the payload must be the one positional argument"


def _fault_of_stored(payload_json: str) -> str | None:
    if len(payload_json) <= PAYLOAD_BYTES_MAX:
        return None
    # jsonb's own text has spaces, which do not count.
    _, fault = _keepable(orjson.loads(payload_json))
    return fault


def _keepable(raw: object) -> tuple[str, str | None]:
    """Return a payload as JSON that PostgreSQL can keep, and what is wrong with it."""
    try:
        written = orjson.dumps(raw)
    except TypeError:
        kept = orjson.dumps({"text": _unwritable(raw)}).decode()
        return kept, "the payload is JSON that can be read and not be written: nested too deep?"
    text, size, fault = written.decode(), len(written), None
    if has_nul(text):
        fault = "the payload contains the character U+0000"
        written = orjson.dumps({"text": text})
        text, size = written.decode(), len(written)
    if size > PAYLOAD_BYTES_MAX:
        fault = f"the payload has {size} bytes, more than {PAYLOAD_BYTES_MAX}"
    if size > PAYLOAD_KEPT_BYTES_MAX:
        text = orjson.dumps({"bytes": size, "text": text[:PAYLOAD_BYTES_MAX]}).decode()
    return text, fault


def _unwritable(raw: object) -> str:
    """Return the beginning of what orjson cannot write, as far as Python can."""
    try:
        return json.dumps(raw)[:PAYLOAD_BYTES_MAX]
    except (RecursionError, TypeError, ValueError):
        return ""
