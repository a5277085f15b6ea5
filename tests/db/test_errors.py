"""What the drivers raise is classified by what it carries, never by its class alone."""

import pytest
from asyncpg.exceptions import (
    CheckViolationError,
    DeadlockDetectedError,
    DiskFullError,
    InternalClientError,
    InvalidCachedStatementError,
    LockNotAvailableError,
    SerializationError,
)
from sqlalchemy.exc import DBAPIError

from db.errors import Diagnosis, Trouble, diagnose


def wrapped(error, *, invalidated=False):
    return DBAPIError("statement", None, error, connection_invalidated=invalidated)


@pytest.mark.parametrize(
    ("error", "trouble", "sqlstate"),
    [
        (wrapped(DeadlockDetectedError("x")), Trouble.CONFLICT, "40P01"),
        (wrapped(SerializationError("x")), Trouble.CONFLICT, "40001"),
        (wrapped(LockNotAvailableError("x")), Trouble.LOCK_TIMEOUT, "55P03"),
        (wrapped(DiskFullError("x")), Trouble.SERVER_RESOURCES, "53100"),
        (wrapped(CheckViolationError("x")), Trouble.ALARM, "23514"),
        (wrapped(RuntimeError("closed"), invalidated=True), Trouble.CONNECTION, None),
        (DeadlockDetectedError("from the driver"), Trouble.CONFLICT, "40P01"),
        (InvalidCachedStatementError("from the driver"), Trouble.STALE_PLAN, "0A000"),
        (InternalClientError("in the middle of a goodbye"), Trouble.CONNECTION, None),
        (TimeoutError(), Trouble.CONNECTION, None),
        (FileNotFoundError("a handler's own file"), Trouble.FAILURE, None),
        (ValueError("a bug"), Trouble.FAILURE, None),
    ],
)
def test_an_exception_is_diagnosed_by_what_it_carries(error, trouble, sqlstate):
    assert diagnose(error) == Diagnosis(trouble, sqlstate)
