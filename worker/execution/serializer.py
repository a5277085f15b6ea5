"""JSON on the wire, never pickle: what arq's clients and workers exchange through Redis."""

import base64
import time
from typing import Any, Final

import orjson

MALFORMED: Final = "teller.malformed"
"""Stands in for a body that is no job in JSON, so that it is kept as a dead job, not logged."""
FROM_RECORD: Final = "teller.from_record"
"""Runs a job that was claimed from PostgreSQL while Redis is away; never on the wire."""
UNKNOWN_KIND: Final = "teller.unknown_kind"
"""Stands in for a kind this worker does not know, so that arq does not delete the job."""

NESTED_MAX: Final = 200
"""Brackets in a body below which its depth is not looked at."""
ENQUEUED_AT_MS_MAX: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, the last that Python's datetime has."""
TRY_MAX: Final = 1_000_000
KIND_BYTES_MAX: Final = 512
"""A longer name is no kind of any worker's; the record's indexes would refuse one of thousands."""


def serialize(value: object) -> bytes:
    """Write a job's body or result; an exception becomes its class and message."""
    return orjson.dumps(value, default=_plain, option=orjson.OPT_NON_STR_KEYS)


def deserialize(body: bytes) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Read a job's body or result.

    Raises:
        orjson.JSONDecodeError: the body is not JSON.
    """
    return orjson.loads(body)


class JobReader:
    """Reads job bodies for a worker that knows certain kinds; never raises, so no job is lost."""

    def __init__(self, kinds: frozenset[str]) -> None:
        self._kinds = kinds

    def __call__(self, body: bytes) -> dict[str, Any]:
        """Return arq's dictionary of a job, redirected where this worker cannot run it."""
        try:
            job = deserialize(body)
        except orjson.JSONDecodeError:
            return _malformed(body)
        if not _is_job(job) or not _is_writable(body, job):
            return _malformed(body)
        if job["f"] in self._kinds:
            return job  # type: ignore[no-any-return]
        return {**job, "f": UNKNOWN_KIND, "a": [job["f"], *job["a"]]}


def _is_job(job: object) -> bool:
    return (
        isinstance(job, dict)
        and isinstance(job.get("f"), str)
        and "\x00" not in job["f"]  # a kind that no column can hold
        and len(job["f"].encode()) <= KIND_BYTES_MAX
        and isinstance(job.get("a"), list)
        and isinstance(job.get("k"), dict)
        and type(job.get("et")) is int  # True is an int, too
        and 0 <= job["et"] <= ENQUEUED_AT_MS_MAX
        and (job.get("t") is None or (type(job["t"]) is int and 0 <= job["t"] <= TRY_MAX))
    )


def _is_writable(body: bytes, job: object) -> bool:
    """Return whether what was read can be written again: orjson reads deeper than it writes."""
    if body.count(b"[") + body.count(b"{") < NESTED_MAX:
        return True
    try:
        orjson.dumps(job)
    except TypeError:
        return False
    return True


def _malformed(body: bytes) -> dict[str, Any]:
    try:
        kept = {"text": body.decode()}
    except UnicodeDecodeError:
        kept = {"base64": base64.b64encode(body).decode()}
    return {"t": None, "f": MALFORMED, "a": [kept], "k": {}, "et": int(time.time() * 1000)}


def _plain(value: object) -> object:
    if isinstance(value, BaseException):
        return {"error": type(value).__name__, "message": str(value)}
    raise TypeError(f"{type(value).__name__} is not JSON")
