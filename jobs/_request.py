"""What a caller asks for, and its checks: they are the same whichever way the job takes."""

import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from ._errors import InvalidKeyError, InvalidTimeError
from ._payload import payload_json
from ._queue import DEFAULT

if TYPE_CHECKING:
    from ._payload import Payload

KEY_CHARACTERS_MAX: Final = 200
TRACEPARENT_CHARACTERS_MAX: Final = 200
"""One has 55; anything longer is dropped, here and by the database."""
YEAR_MIN: Final = 1970


@dataclass(frozen=True, slots=True)
class Request:
    """One of several jobs for `enqueue_many`, where it needs more than its payload."""

    payload: "Payload"
    key: str | None = None
    run_at: datetime | None = None
    delay: timedelta | None = None
    notify: str | None = None


@dataclass(frozen=True, slots=True)
class CheckedRequest:
    """A request that can be stored and sent, with its payload serialized once for both."""

    kind: str
    payload_json: str
    key: str | None
    run_at: datetime | None
    delay: timedelta | None
    """Counted by the server that accepts the job: the caller's clock may be wrong."""
    traceparent: str | None
    notify: str | None = None
    """The webhook endpoint that hears of the job's end."""


@dataclass(frozen=True, slots=True)
class Enqueued:
    """What became of a request."""

    redis_id: str
    created: bool
    """False: the job was already accepted, with the same payload."""
    replaced: bool = False
    """True: a job that waits has taken this payload and time in place of its own."""
    run_at: datetime | None = None
    """Not before this time, where the server that accepted the job has said so."""
    queue: str = DEFAULT
    """The queue that it waits in."""


def check(request: "Payload | Request") -> CheckedRequest:
    """Return the request as it can be stored and sent.

    Raises:
        InvalidPayloadError, InvalidKeyError, InvalidTimeError: it cannot be.
        ValueError: it has both `run_at` and `delay`.
    """
    if not isinstance(request, Request):
        request = Request(request)
    if request.run_at is not None and request.delay is not None:
        raise ValueError("give run_at or delay, not both")
    return CheckedRequest(
        kind=request.payload.kind,
        payload_json=payload_json(request.payload),
        key=checked_key(request.key),
        run_at=None if request.run_at is None else checked_time(request.run_at),
        delay=None if request.delay is None else checked_delay(request.delay),
        traceparent=traceparent(),
        notify=request.notify,
    )


def require_no_notify(request: CheckedRequest) -> CheckedRequest:
    """Return a request that nobody wants to hear the end of.

    Raises:
        ValueError: somebody does, and would hear nothing.
    """
    if request.notify is not None:
        raise ValueError(
            "notify= is for a job that a client enqueues by itself, and for the `then` of a batch: "
            "a follow-up or a member of a batch takes none"
        )
    return request


def checked_key(key: str | None) -> str | None:
    """Return the key if it can be stored.

    Raises:
        InvalidKeyError: it is empty, too long, or no text that PostgreSQL takes.
    """
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_CHARACTERS_MAX or "\x00" in key:
        raise InvalidKeyError(
            f"a key has 1 to {KEY_CHARACTERS_MAX} characters and no U+0000, "
            f"this one has {len(key)}: use an id of your own, such as order-42"
        )
    try:
        key.encode()
    except UnicodeEncodeError:
        raise InvalidKeyError("a key is Unicode text without lone surrogates") from None
    return key


def checked_time(run_at: datetime) -> datetime:
    """Return the time in UTC if it can be stored.

    Raises:
        InvalidTimeError: it has no time zone, or is outside the years 1970 to 9999.
    """
    if run_at.tzinfo is None:
        raise InvalidTimeError("run_at needs a time zone: for example datetime.now(UTC) + …")
    try:
        in_utc = run_at.astimezone(UTC)
    except OverflowError:
        in_utc = datetime.min.replace(tzinfo=UTC)
    if in_utc.year < YEAR_MIN:
        raise InvalidTimeError("run_at is outside the years 1970 to 9999: leave it out for now")
    return in_utc


def checked_delay(delay: timedelta) -> timedelta:
    """Return the delay if what it leads to can be stored, as far as this clock can tell.

    Raises:
        InvalidTimeError: it leads outside the years 1970 to 9999.
    """
    try:
        checked_time(datetime.now(UTC) + delay)
    except OverflowError:
        raise InvalidTimeError("the delay leads outside the years 1970 to 9999") from None
    return delay


def traceparent() -> str | None:
    """Return the caller's trace context, where OpenTelemetry is in use."""
    propagate = sys.modules.get("opentelemetry.propagate")
    if propagate is None:
        return None
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    found = carrier.get("traceparent")
    return None if found is None or len(found) > TRACEPARENT_CHARACTERS_MAX else found
