"""What to do about an exception: classified from what asyncpg and SQLAlchemy really raise.

Pure: no I/O, no clock; the random numbers are passed in. The table is the one of PostgreSQL's
"Serialization Failure Handling", plus lock timeouts and lost connections. Nothing here arrives as
`OperationalError`: asyncpg's errors surface as plain `DBAPIError` with an `sqlstate`.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from asyncpg.exceptions import (
    InterfaceError,
    InternalClientError,
    InvalidCachedStatementError,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

if TYPE_CHECKING:
    from jobs import Policy


class Trouble(StrEnum):
    """What kind of thing went wrong, as far as it decides what happens next."""

    CONFLICT = "conflict"  # rolled back for certain: deadlock, serialization failure
    LOCK_TIMEOUT = "lock_timeout"  # rolled back, and somebody holds the lock for long
    QUERY_CANCELLED = "query_cancelled"  # statement timeout, or an operator's pg_cancel_backend
    CONNECTION = "connection"  # lost or refused; unknown whether a COMMIT in flight happened
    SERVER_SICK = "server_sick"  # disk full, out of memory, I/O error
    TOO_SLOW = "too_slow"  # idle-in-transaction or transaction timeout: our own slowness
    STALE_PLAN = "stale_plan"  # the schema changed under a prepared statement
    UNIQUE = "unique"  # a race between read and insert, or a real business conflict
    ALARM = "alarm"  # a constraint that should never be reached: a bug, never retried
    JOB_TIMEOUT = "job_timeout"
    FAILURE = "failure"  # anything else a handler raises


_BY_SQLSTATE: Final = {
    "40P01": Trouble.CONFLICT,
    "40001": Trouble.CONFLICT,
    "55P03": Trouble.LOCK_TIMEOUT,
    "57014": Trouble.QUERY_CANCELLED,
    "40003": Trouble.CONNECTION,
    "08007": Trouble.CONNECTION,
    "53300": Trouble.CONNECTION,
    "57P01": Trouble.CONNECTION,
    "57P02": Trouble.CONNECTION,
    "57P03": Trouble.CONNECTION,
    "25P03": Trouble.TOO_SLOW,
    "25P04": Trouble.TOO_SLOW,
    "23505": Trouble.UNIQUE,
    "23514": Trouble.ALARM,
    "22003": Trouble.ALARM,
    "25P02": Trouble.ALARM,
}
_BY_CLASS: Final = {
    "08": Trouble.CONNECTION,
    "53": Trouble.SERVER_SICK,
    "58": Trouble.SERVER_SICK,
}


@dataclass(frozen=True, slots=True)
class InPlaceRule:
    """How often, and after what wait, a trouble is tried again at once, in a new transaction."""

    tries_max: int
    base_s: float
    cap_s: float


# Full jitter, a few tries within about a second; a lock held for long gets fewer.
IN_PLACE: Final = {
    Trouble.CONFLICT: InPlaceRule(tries_max=6, base_s=0.010, cap_s=0.250),
    Trouble.LOCK_TIMEOUT: InPlaceRule(tries_max=2, base_s=0.050, cap_s=0.250),
    Trouble.QUERY_CANCELLED: InPlaceRule(tries_max=1, base_s=0.050, cap_s=0.250),
    Trouble.CONNECTION: InPlaceRule(tries_max=3, base_s=0.100, cap_s=1.0),
    Trouble.TOO_SLOW: InPlaceRule(tries_max=1, base_s=0.100, cap_s=0.500),
    Trouble.STALE_PLAN: InPlaceRule(tries_max=2, base_s=0.0, cap_s=0.0),
    Trouble.UNIQUE: InPlaceRule(tries_max=1, base_s=0.010, cap_s=0.050),
}

# What is not the job's fault goes back to the queue for this long, and spends no attempt.
REQUEUE_S: Final = {
    Trouble.CONFLICT: (0.5, 5.0),
    Trouble.LOCK_TIMEOUT: (0.5, 5.0),
    Trouble.QUERY_CANCELLED: (1.0, 10.0),
    Trouble.CONNECTION: (1.0, 5.0),
    Trouble.SERVER_SICK: (30.0, 60.0),
    Trouble.TOO_SLOW: (1.0, 10.0),
    Trouble.STALE_PLAN: (0.5, 5.0),
}

# Past this many deliveries even a lock conflict spends attempts: no job goes round for ever.
# A lost connection never does: it could not be recorded, and says nothing about the job.
FREE_DELIVERIES_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A trouble and the SQLSTATE it came with, for the record and the metrics."""

    trouble: Trouble
    sqlstate: str | None = None


@dataclass(frozen=True, slots=True)
class RunAgain:
    """At once, in a new session and transaction, after a short wait."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class PutBack:
    """To the queue, after a longer wait, spending no attempt."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class SpendAttempt:
    """The job's own failure: an attempt is used up, and the record decides what is left."""


@dataclass(frozen=True, slots=True)
class Bury:
    """Dead at once: trying again cannot help, and somebody must look."""


Decision = RunAgain | PutBack | SpendAttempt | Bury


def diagnose(error: BaseException) -> Diagnosis:
    """Tell what kind of trouble an exception is."""
    sqlstate = sqlstate_of(error)
    return Diagnosis(_trouble_of(error, sqlstate), sqlstate)


def decide(diagnosis: Diagnosis, *, tries_in_place: int, try_number: int, luck: float) -> Decision:
    """Return what to do after one failed try.

    Args:
        diagnosis: what went wrong.
        tries_in_place: tries already made during this delivery, at least 1.
        try_number: deliveries so far, at least 1.
        luck: uniform in [0, 1), for the jitter.
    """
    trouble = diagnosis.trouble
    if trouble is Trouble.ALARM:
        return Bury()
    rule = IN_PLACE.get(trouble)
    if rule is not None and tries_in_place <= rule.tries_max:
        return RunAgain(full_jitter(rule.base_s, rule.cap_s, tries_in_place, luck))
    if trouble not in REQUEUE_S:
        return SpendAttempt()
    if trouble is not Trouble.CONNECTION and try_number > FREE_DELIVERIES_MAX:
        return SpendAttempt()
    shortest, longest = REQUEUE_S[trouble]
    return PutBack(shortest + luck * (longest - shortest))


def full_jitter(base_s: float, cap_s: float, attempt: int, luck: float) -> float:
    """Return a wait in [0, min(cap, base·2^(attempt-1))), after AWS's "full jitter"."""
    return luck * min(cap_s, base_s * 2.0 ** min(attempt - 1, 32))


def backoff(policy: "Policy", attempts: int, luck: float) -> timedelta:
    """Return the wait after the n-th spent attempt: exponential, half fixed and half jitter."""
    full = min(
        policy.backoff_cap.total_seconds(),
        policy.backoff_base.total_seconds() * 2.0 ** min(attempts - 1, 32),
    )
    return timedelta(seconds=full / 2 + luck * full / 2)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five-character code of a database error, wherever in its chain it hides."""
    seen: BaseException | None = getattr(error, "orig", None) or error
    for _ in range(5):
        if seen is None:
            return None
        sqlstate = getattr(seen, "sqlstate", None)
        if isinstance(sqlstate, str):
            return sqlstate
        seen = seen.__cause__
    return None


class JobTimeoutError(Exception):
    """The job ran longer than its policy allows."""


def _trouble_of(error: BaseException, sqlstate: str | None) -> Trouble:
    match error:
        case JobTimeoutError():
            return Trouble.JOB_TIMEOUT
        case DBAPIError(connection_invalidated=True) | PoolTimeoutError() | TimeoutError():
            # The executor turns its own deadline into JobTimeoutError, so a bare TimeoutError is
            # a connection that did not come about.
            return Trouble.CONNECTION
        case InvalidCachedStatementError() | DBAPIError() if _plan_is_stale(error):
            return Trouble.STALE_PLAN
        case OSError() | InterfaceError() | InternalClientError() if _lost_by_driver(error):
            return Trouble.CONNECTION
    if sqlstate is None:
        return Trouble.FAILURE
    return _BY_SQLSTATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2]) or Trouble.FAILURE


def _plan_is_stale(error: Exception) -> bool:
    return "InvalidCachedStatement" in repr(getattr(error, "orig", error))


def _lost_by_driver(error: Exception) -> bool:
    """Tell a refused or broken database connection from a handler's own missing file.

    With the server down asyncpg lets the socket's own error out, so the traceback is what tells.
    """
    if isinstance(error, InternalClientError):
        return True  # the server ended the connection while nobody was asking it anything
    if isinstance(error, InterfaceError):
        return "closed" in str(error)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith("asyncpg."):
            return True
        traceback = traceback.tb_next
    return False
