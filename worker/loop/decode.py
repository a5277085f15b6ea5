"""Decoding a claim: from bytes to a job that can run, or the reason why it cannot."""

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from arq.cron import CronJob
from arq.jobs import SerializationError, deserialize_job_raw
from arq.utils import timestamp_ms
from arq.worker import JobExecutionFailed

from .aborts import is_meant_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    from arq.jobs import Deserializer
    from arq.worker import Function

    from .claims import Claim


@dataclass(slots=True, eq=False)
class ReadyJob:
    """A job that is about to run."""

    job_id: str
    name: str
    function: "Function | CronJob"
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    job_try: int
    score: int
    enqueue_ms: int

    @property
    def is_cron(self) -> bool:
        """Whether a schedule made the job."""
        return isinstance(self.function, CronJob)

    @property
    def ref(self) -> str:
        """The job's name in log lines."""
        return self.name if self.is_cron else f"{self.job_id}:{self.name}"


@dataclass(slots=True, eq=False)
class Refusal:
    """Why a job is not run, and as much of the job as could be decoded."""

    reason: str
    error: BaseException
    """Stored as the job's result: a client that waits for the job gets it raised."""
    name: str = "<unknown>"
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    enqueue_ms: int = 0
    tries_max: int = 0


TRIES_MAX: Final = 1_000_000_000
"""A body that names a later try is none; the scripts' own bound."""
ENQUEUED_MAX_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999, the last that Python has a date for."""

EXPIRED = "expired"
UNREADABLE = "unreadable"
ABORTED = "aborted before start"
UNKNOWN_FUNCTION = "unknown function"
OUT_OF_TRIES = "out of tries"


def decode_claim(  # noqa: PLR0911 - one reason per line
    claim: "Claim",
    functions: "Mapping[str, Function | CronJob]",
    deserializer: "Deserializer | None",
    max_tries: int,
) -> ReadyJob | Refusal:
    """Return the job of a claim, or a refusal if the job must not run."""
    if claim.body is None:
        return Refusal(EXPIRED, JobExecutionFailed("job expired"))
    try:
        name, args, kwargs, first_try, enqueue_ms = deserialize_job_raw(
            claim.body, deserializer=deserializer
        )
    except SerializationError as error:
        return Refusal(UNREADABLE, error)
    except BaseException as error:  # noqa: BLE001 - a body may run code, if it is a pickle
        return Refusal(UNREADABLE, SerializationError(f"the body raised {type(error).__name__}"))
    fault = _fault_of(name, args, kwargs, first_try, enqueue_ms)
    if fault is not None:
        return Refusal(UNREADABLE, SerializationError(fault))
    claim.enqueue_ms = enqueue_ms
    if claim.aborted_at_ms is not None and is_meant_for(
        claim.aborted_at_ms, enqueue_ms, timestamp_ms()
    ):
        cancelled = asyncio.CancelledError()
        return Refusal(ABORTED, cancelled, name, args, kwargs, enqueue_ms)
    function = functions.get(name)
    if function is None:
        missing = JobExecutionFailed(f"function {name!r} not found")
        return Refusal(UNKNOWN_FUNCTION, missing, name, args, kwargs, enqueue_ms)
    job_try = max(claim.tries, first_try or 0)
    allowed = max_tries if function.max_tries is None else function.max_tries
    if job_try > allowed:
        spent = JobExecutionFailed(f"max {allowed} retries exceeded")
        return Refusal(OUT_OF_TRIES, spent, name, args, kwargs, enqueue_ms, allowed)
    return ReadyJob(claim.job_id, name, function, args, kwargs, job_try, claim.score, enqueue_ms)


def _fault_of(
    name: object, args: object, kwargs: object, first_try: object, enqueue_ms: object
) -> str | None:
    """Return what is wrong with the fields of a body; None if it is a job's."""
    if type(name) is not str:
        return "the function's name (f) is no text"
    if not isinstance(args, (list, tuple)):
        return "the arguments (a) are no list"
    if not isinstance(kwargs, dict) or (kwargs and not all(type(key) is str for key in kwargs)):
        return "the keyword arguments (k) are no dictionary with names"
    if first_try is not None and not (type(first_try) is int and 0 <= first_try <= TRIES_MAX):
        return "the try (t) is no whole number, or an absurd one"
    if not (type(enqueue_ms) is int and 0 <= enqueue_ms <= ENQUEUED_MAX_MS):
        return "the time of enqueueing (et) is not in Unix milliseconds"
    return None
