"""A job as arq hands it over, and the identity it has in the record."""

import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from db.record import Delivered
from jobs._redis_door import job_id_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

PAYLOAD_BYTES_MAX: Final = 65_536
PAYLOAD_KEPT_BYTES_MAX: Final = 16 * 1024 * 1024

# jsonb cannot hold the character U+0000. An even number of backslashes before it is an escaped one.
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Delivery:
    """One delivery of one job to this worker."""

    job: Delivered
    raw: object
    """The payload as JSON brought it, not yet validated."""
    try_number: int
    wait_s: float = 0.0
    """Seconds from when the job became runnable to when this worker took it."""
    started_at: float = field(default_factory=time.monotonic)
    by_id: bool = False
    """Whether only the id was sent, and the payload is in the record."""
    exclusive: bool = False
    """Whether it was claimed from the record, so that its row is the only lease there is."""
    fault: str | None = None
    """Why it cannot be run, whatever its kind; the payload is kept all the same."""


def read_delivery(
    kind: str, ctx: "Mapping[Any, Any]", args: "Sequence[Any]", kwargs: "Mapping[str, Any]"
) -> Delivery:
    """Return what arq delivered: the payload is the one positional argument, or in the record."""
    job = identify(kind, ctx["job_id"], ctx["enqueue_time"])
    # arq's score is the millisecond from which the job may run.
    wait_s = max(0.0, time.time() - ctx["score"] / 1000)
    delivery = Delivery(job, None, ctx["job_try"], wait_s=round(wait_s, 6))
    if not args and not kwargs:
        return replace(delivery, by_id=True)
    if len(args) == 1 and not kwargs:
        return with_payload(delivery, args[0])
    everything = {"args": list(args), "kwargs": dict(kwargs)}
    fault = "the payload must be the one positional argument"
    return with_payload(replace(delivery, fault=fault), everything)


def identify(kind: str, redis_id: str, enqueued_at: "datetime") -> Delivered:
    """Return a job's identity in the record, its payload still to come."""
    job_id = job_id_of(redis_id)
    return Delivered(
        id=job_id,
        kind=kind,
        payload_json="null",
        enqueued_at=enqueued_at,
        redis_id=None if redis_id == str(job_id) else redis_id.replace("\x00", "\ufffd"),
    )


def with_payload(delivery: Delivery, raw: object) -> Delivery:
    """Return the delivery with its payload in a form that the record can keep, faults named."""
    text = orjson.dumps(raw).decode()
    fault = delivery.fault
    if _NUL.search(text):
        fault = "the payload contains the character U+0000"
        text = orjson.dumps({"text": text}).decode()
    size = len(text.encode())
    if size > PAYLOAD_BYTES_MAX:
        fault = f"the payload has {size} bytes, more than {PAYLOAD_BYTES_MAX}"
    if size > PAYLOAD_KEPT_BYTES_MAX:
        text = orjson.dumps({"bytes": size, "text": text[:PAYLOAD_BYTES_MAX]}).decode()
    return replace(delivery, job=replace(delivery.job, payload_json=text), raw=raw, fault=fault)
