"""What asyncpg and SQLAlchemy raise, classified by what went wrong.

Pure, and never fails, whatever the exception does when it is looked at. The table is the one of
PostgreSQL's "Serialization Failure Handling", plus lock timeouts, lost connections, and what a
deployment can lack. Nothing arrives as `OperationalError`: asyncpg's errors surface as a plain
`DBAPIError` with an `sqlstate`. What follows from a classification is for the caller to decide.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ssl import SSLCertVerificationError
from typing import Final

from asyncpg.exceptions import (
    InterfaceError,
    InternalClientError,
    InvalidCachedStatementError,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError


class Trouble(StrEnum):
    """What went wrong, as far as it decides what happens next."""

    CONFLICT = "conflict"  # rolled back for certain: deadlock, serialization failure
    LOCK_TIMEOUT = "lock_timeout"  # rolled back, and another transaction holds the lock for long
    QUERY_CANCELLED = "query_cancelled"  # statement timeout, or an operator's pg_cancel_backend
    CONNECTION = "connection"  # lost or refused; unknown whether a COMMIT in flight happened
    SERVER_RESOURCES = "server_resources"  # disk full, out of memory, I/O error
    ENVIRONMENT = "environment"  # a grant, a table or a function that the deployment lacks
    TOO_SLOW = "too_slow"  # idle-in-transaction or transaction timeout: our own slowness
    STALE_PLAN = "stale_plan"  # the schema changed under a prepared statement
    UNIQUE = "unique"  # a race between read and insert, or a real business conflict
    ALARM = "alarm"  # a constraint that should never be reached: a bug, never retried
    JOB_TIMEOUT = "job_timeout"  # a job's own deadline; no driver raises it
    FAILURE = "failure"  # anything else


TRANSIENT: Final = frozenset(
    {
        Trouble.CONFLICT,
        Trouble.LOCK_TIMEOUT,
        Trouble.QUERY_CANCELLED,
        Trouble.CONNECTION,
        Trouble.SERVER_RESOURCES,
        Trouble.TOO_SLOW,
        Trouble.STALE_PLAN,
    }
)
"""What passes by itself, so that the same work may succeed later."""

_BY_SQLSTATE: Final = {
    "40P01": Trouble.CONFLICT,
    "40001": Trouble.CONFLICT,
    "55P03": Trouble.LOCK_TIMEOUT,
    "57014": Trouble.QUERY_CANCELLED,
    "40003": Trouble.CONNECTION,
    "08007": Trouble.CONNECTION,
    "25006": Trouble.CONNECTION,  # a session that can only read is as good as a closed one
    "53300": Trouble.CONNECTION,
    "57P01": Trouble.CONNECTION,
    "57P02": Trouble.CONNECTION,
    "57P03": Trouble.CONNECTION,
    "57P05": Trouble.CONNECTION,
    "25P03": Trouble.TOO_SLOW,
    "25P04": Trouble.TOO_SLOW,
    "23505": Trouble.UNIQUE,
    "23514": Trouble.ALARM,
    "22003": Trouble.ALARM,
    "25P02": Trouble.ALARM,
    "0A000": Trouble.ENVIRONMENT,
    "3D000": Trouble.ENVIRONMENT,
    "3F000": Trouble.ENVIRONMENT,
    "42501": Trouble.ENVIRONMENT,
    "42703": Trouble.ENVIRONMENT,
    "42704": Trouble.ENVIRONMENT,
    "42883": Trouble.ENVIRONMENT,
    "42P01": Trouble.ENVIRONMENT,
    "55000": Trouble.ENVIRONMENT,
}
_BY_CLASS: Final = {
    "28": Trouble.ENVIRONMENT,
    "08": Trouble.CONNECTION,
    "53": Trouble.SERVER_RESOURCES,
    "58": Trouble.SERVER_RESOURCES,
}

CAUSES_FOLLOWED_MAX: Final = 5
LEAVES_LOOKED_AT_MAX: Final = 50
"""Of the exceptions in a group."""

_DRIVER_MODULES: Final = ("asyncpg.", "db.connection")
_SQLSTATE: Final = re.compile("[0-9A-Z]{5}")


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """A trouble and the SQLSTATE it came with, for the job's row and the metrics."""

    trouble: Trouble
    sqlstate: str | None = None


def diagnose(error: BaseException) -> Diagnosis:
    """Return what kind of trouble an exception is; of a group, its first that is not a failure."""
    try:
        found = [_diagnose(leaf) for leaf in _leaves(error)]
    except BaseException:  # noqa: BLE001 - a property of somebody's exception can raise anything
        return Diagnosis(Trouble.FAILURE)
    return next((one for one in found if one.trouble is not Trouble.FAILURE), found[0])


def sqlstate_of(error: BaseException) -> str | None:
    """Return the five-character code of a database error, from the error or one of its causes."""
    seen: BaseException | None = getattr(error, "orig", None) or error
    for _ in range(CAUSES_FOLLOWED_MAX):
        if seen is None:
            return None
        sqlstate = getattr(seen, "sqlstate", None)
        if isinstance(sqlstate, str) and _SQLSTATE.fullmatch(sqlstate):
            return sqlstate
        seen = seen.__cause__
    return None


def _leaves(error: BaseException) -> list[BaseException]:
    leaves: list[BaseException] = []
    waiting = [error]
    while waiting and len(leaves) < LEAVES_LOOKED_AT_MAX:
        seen = waiting.pop(0)
        if isinstance(seen, BaseExceptionGroup):
            waiting += seen.exceptions
        else:
            leaves.append(seen)
    return leaves or [error]


def _diagnose(error: BaseException) -> Diagnosis:
    sqlstate = sqlstate_of(error)
    return Diagnosis(_trouble_of(error, sqlstate), sqlstate)


def _trouble_of(error: BaseException, sqlstate: str | None) -> Trouble:
    match error:
        case DBAPIError(connection_invalidated=True) | PoolTimeoutError():
            return Trouble.CONNECTION
        case InvalidCachedStatementError() | DBAPIError() if _plan_is_stale(error):
            return Trouble.STALE_PLAN
        case SSLCertVerificationError():
            return Trouble.ENVIRONMENT
        case OSError() | InterfaceError() | InternalClientError() if _lost_by_driver(error):
            # A TimeoutError is an OSError: one of the driver's is a server that does not answer,
            # one that a handler's own deadline raised is the handler's.
            return Trouble.CONNECTION
    if sqlstate is None:
        return Trouble.FAILURE
    return _BY_SQLSTATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2]) or Trouble.FAILURE


def _plan_is_stale(error: Exception) -> bool:
    return "InvalidCachedStatement" in repr(getattr(error, "orig", error))


def _lost_by_driver(error: Exception) -> bool:
    """Return whether a database connection broke or was refused, and not a handler's own file.

    With the server down asyncpg lets the socket's own error out: only its traceback shows where
    it was raised.
    """
    if isinstance(error, InternalClientError):
        return True  # the server ended the connection between two statements
    if isinstance(error, InterfaceError):
        return "closed" in str(error)
    traceback = error.__traceback__
    while traceback is not None:
        if traceback.tb_frame.f_globals.get("__name__", "").startswith(_DRIVER_MODULES):
            return True
        traceback = traceback.tb_next
    return False
