"""What the drivers raise is classified by what it carries, never by its class alone."""

import asyncio
from typing import Any

import pytest
from asyncpg.exceptions import (
    CheckViolationError,
    DeadlockDetectedError,
    DiskFullError,
    InsufficientPrivilegeError,
    InternalClientError,
    InvalidCachedStatementError,
    InvalidPasswordError,
    LockNotAvailableError,
    ReadOnlySQLTransactionError,
    SerializationError,
    UndefinedFunctionError,
)
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.engine import create_engine
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
        (TimeoutError("a handler's own deadline"), Trouble.FAILURE, None),
        (wrapped(InsufficientPrivilegeError("x")), Trouble.ENVIRONMENT, "42501"),
        (UndefinedFunctionError("from the driver"), Trouble.ENVIRONMENT, "42883"),
        (InvalidPasswordError("at the door"), Trouble.ENVIRONMENT, "28P01"),
        (wrapped(ReadOnlySQLTransactionError("x")), Trouble.CONNECTION, "25006"),
        (
            ExceptionGroup("a task group", [ValueError(), DeadlockDetectedError("x")]),
            Trouble.CONFLICT,
            "40P01",
        ),
        (FileNotFoundError("a handler's own file"), Trouble.FAILURE, None),
        (ValueError("a bug"), Trouble.FAILURE, None),
    ],
)
def test_an_exception_is_diagnosed_by_what_it_carries(error, trouble, sqlstate):
    assert diagnose(error) == Diagnosis(trouble, sqlstate)


class HostileError(Exception):
    """Raises when it is looked at."""

    @property
    def sqlstate(self):
        raise RuntimeError("not for you")


def test_an_exception_that_must_not_be_looked_at_is_a_failure():
    assert diagnose(HostileError()) == Diagnosis(Trouble.FAILURE)


async def test_a_driver_that_gives_a_server_up_reports_a_lost_connection(database_url):
    """Only where it was raised tells its TimeoutError from a handler's own."""
    engine = create_engine(database_url, pool_size=1, application_name="teller-tests")
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        with pytest.raises(TimeoutError) as silent:
            await driver.execute("SELECT pg_sleep(5)", timeout=0.05)
        with pytest.raises(TimeoutError) as impatient:
            async with asyncio.timeout(0.05):
                await connection.execute(text("SELECT pg_sleep(5)"))
    await engine.dispose()

    assert diagnose(silent.value).trouble is Trouble.CONNECTION
    assert diagnose(impatient.value).trouble is Trouble.FAILURE
