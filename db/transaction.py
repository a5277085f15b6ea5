"""A job's own transaction, driven through its asyncpg connection.

Every job has one, so what it costs counts: SQLAlchemy would send BEGIN and COMMIT through two more
layers each. The job's session works in this transaction like in any other, but does not own it: a
connection that returns to the pool with an uncommitted one is rolled back there
(`db.engine`).
"""

from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import engine as session_defaults  # read at call time: a test can shorten them
from db.engine import ONE_MOMENT
from db.errors import sqlstate_of
from db.statements import NotYoursError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
    from sqlalchemy.orm import SessionTransaction

    from db.connection import DriverConnection

LIMIT_MARGIN_MS: Final = 5_000
"""What a transaction may take beyond its job's timeout: to be cut short, and to be concluded."""

POSTGRES_LIMIT_MAX_MS: Final = 2**31 - 1

ENDED: Final = "the job's transaction was ended while its handler ran: effects may be kept twice"

MOVE_LIMITS: Final = """
    SELECT count(set_config(
        name, CASE set_config(name, '0', true) WHEN '0' THEN :limit_ms END, true))
    FROM pg_settings WHERE name IN
        ('transaction_timeout', 'idle_in_transaction_session_timeout', 'statement_timeout')
"""
"""Moves the limits of the transaction it runs in, those that the server has. By way of 0: what runs
already is not moved by another value."""

_DRIVER: Final = "teller_driver"
"""Where a job's session keeps the driver of its transaction."""


class JobSession(AsyncSession):
    """A job's session: does everything but begin and end the transaction."""

    def begin(self) -> NoReturn:
        """Refuse; its commit and rollback would reach nothing. `begin_nested` is a savepoint."""
        self._refuse()

    async def commit(self) -> NoReturn:
        """Refuse; the worker commits, together with the job's outcome."""
        self._refuse()

    async def rollback(self) -> NoReturn:
        """Refuse; a handler raises, or answers `Rejected`, and nothing is kept."""
        self._refuse()

    async def close(self) -> NoReturn:
        """Refuse; the worker closes it."""
        self._refuse()

    async def release(self) -> None:
        """Forget every object; the transaction decides what is kept in the database."""
        if self.in_transaction():
            await super().close()
        else:
            self.expunge_all()

    @staticmethod
    def _refuse() -> NoReturn:
        raise NotYoursError("a handler must not commit, roll back, close or begin: the worker does")


class TransactionEndedError(RuntimeError):
    """A job's transaction was ended while its handler ran, and not by the worker.

    What was written before may be kept already, without the job's outcome: running the job again
    could do it twice.
    """


def limit_fault(limit: timedelta) -> str | None:
    """Return why no job can have this timeout, or None."""
    if limit <= timedelta():
        return "it must be longer than nothing"
    longest = timedelta(milliseconds=POSTGRES_LIMIT_MAX_MS - LIMIT_MARGIN_MS)
    if limit > longest:
        return f"PostgreSQL's own limits cannot be as long: {longest.days} days at most"
    return None


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a job's transaction may take."""

    limits: str
    """What is sent behind BEGIN; mostly nothing. A limit of the server that would end the job early
    is moved for this transaction."""
    transaction_limit: str
    """The same, where the server has a limit for transactions."""
    patience_s: float
    """How long the driver waits for one answer."""

    def serve(self, driver: "DriverConnection") -> None:
        """Have a connection serve the job."""
        extra = self.transaction_limit if driver.has_transaction_timeout else ""
        driver.serve(self.limits + extra, self.patience_s)


def terms_of(limit: timedelta | None) -> Terms:
    """Return the terms of a job that may run for `limit`; None: the usual ones."""
    return _terms(
        limit,
        session_defaults.STATEMENT_TIMEOUT_MS,
        session_defaults.IDLE_IN_TRANSACTION_TIMEOUT_MS,
        session_defaults.TRANSACTION_TIMEOUT_MS,
        session_defaults.COMMAND_TIMEOUT_S,
    )


@lru_cache(maxsize=64)
def _terms(
    limit: timedelta | None, statement_ms: int, idle_ms: int, transaction_ms: int, command_s: float
) -> Terms:
    if limit is None:
        return Terms("", "", command_s)
    needed_ms = int(limit / timedelta(milliseconds=1)) + LIMIT_MARGIN_MS
    limits = transaction_limit = ""
    if needed_ms > statement_ms:
        limits += f"; SET LOCAL statement_timeout = {needed_ms}"
    if needed_ms > idle_ms:
        limits += f"; SET LOCAL idle_in_transaction_session_timeout = {needed_ms}"
    if needed_ms > transaction_ms:
        # A running one is not moved by a new value: it must be switched off and on.
        transaction_limit = (
            f"; SET LOCAL transaction_timeout = 0; SET LOCAL transaction_timeout = {needed_ms}"
        )
    return Terms(limits, transaction_limit, max(command_s, needed_ms / 1000))


class JobTransaction:
    """A new session in a transaction of its own, for the length of a block.

    Only `commit` keeps anything: however the block ends otherwise, it is rolled back.

    Args:
        engine: where to.
        limit: how long the job may run; the server's limits follow it.
    """

    __slots__ = ("_connection", "_driver", "_engine", "_is_open", "_limit", "_pooled", "session")

    def __init__(self, engine: "AsyncEngine", limit: timedelta | None = None) -> None:
        self._engine = engine
        self._limit = limit
        self._is_open = False

    @property
    def is_silent(self) -> bool:
        """Whether the server did not answer even a ROLLBACK; known when the block has ended.

        Then a job that ran out of time may have waited for the server.
        """
        driver: DriverConnection | None = getattr(self, "_driver", None)
        return driver is not None and driver.is_silent

    async def __aenter__(self) -> Self:
        """Take a connection, and begin."""
        self._connection: AsyncConnection = await self._engine.connect()
        try:
            proxied: Any = self._connection.sync_connection
            self._pooled: Any = proxied.connection.dbapi_connection
            self._driver: DriverConnection = self._pooled.driver_connection
            # SQLAlchemy must not begin one as well. The pool takes this for a transaction to roll
            # back, so it is set before there may be one, and reset after there is none.
            self._pooled.autocommit = True
            terms_of(self._limit).serve(self._driver)
            await self._driver.begin()
            self._is_open = True
        except BaseException:
            await self._connection.__aexit__(None, None, None)
            raise
        self.session = JobSession(self._connection, expire_on_commit=False, autoflush=False)
        self.session.info[_DRIVER] = self._driver
        return self

    async def __aexit__(self, _type: object, error: BaseException | None, _where: object) -> None:
        """Release the session and the connection; what was not committed is rolled back.

        Raises:
            TransactionEndedError: the block failed, and its transaction was ended within it.
        """
        was_ended = isinstance(error, Exception) and self._was_ended()
        if error is not None and sqlstate_of(error) == session_defaults.READ_ONLY:
            self._driver.doom()
        try:
            await self.session.release()
        finally:
            if self._pooled.autocommit:
                # In a task that no cancellation cuts short.
                await self._connection.__aexit__(None, None, None)
            else:
                await self._connection.close()
        if was_ended:
            raise TransactionEndedError(ENDED) from error

    async def conclude(self) -> None:
        """Check that the transaction is still open, before the worker's own statements follow.

        Await it when the handler has answered; it costs a round trip only where the handler may
        have changed its role or search_path.

        Raises:
            TransactionEndedError: it was ended meanwhile.
        """
        if self._was_ended():
            raise TransactionEndedError(ENDED)
        if self._driver.conclude():
            await self._driver.take_own_names()

    async def restart(self) -> None:
        """Roll back, and begin again.

        Raises:
            TransactionEndedError: there is nothing to roll back any more.
        """
        if self._was_ended():
            raise TransactionEndedError(ENDED)
        await self.session.release()
        self._is_open = False
        await self._driver.restart()
        self._is_open = True

    async def commit(self) -> None:
        """Commit, with all that the session's objects have not written yet."""
        await self.session.flush()
        self._is_open = False
        await self._driver.commit()
        self._pooled.autocommit = False

    def _was_ended(self) -> bool:
        """Return whether the transaction that was begun here is over; the driver knows it."""
        driver = self._driver
        return self._is_open and not driver.is_closed() and not driver.is_in_transaction()


class SnapshotSession(AsyncSession):
    """The session of a job that only reads: it looks at moments, and keeps nothing."""

    async def commit(self) -> NoReturn:
        """Refuse; there is nothing to keep. `rollback` lets go of a moment, to look at another."""
        raise NotYoursError("a snapshot job only reads: roll back to look at another moment")


@asynccontextmanager
async def snapshot_session(
    database: "AsyncEngine", limit: timedelta
) -> "AsyncIterator[AsyncSession]":
    """Open the session of a job that only reads, whose transactions may take as long as the job.

    Each of them sees one moment, and cannot write.

    Args:
        database: where to.
        limit: how long the job may run.

    Raises:
        TransactionEndedError: one of them was ended behind the session's back.
    """
    terms = terms_of(limit)
    driver: Any = None

    def serve(_session: object, _transaction: object, connection: "Connection") -> None:
        nonlocal driver
        driver = connection.connection.driver_connection
        terms.serve(driver)

    def let_go(_session: object, transaction: "SessionTransaction") -> None:
        nonlocal driver
        if transaction.parent is None:
            driver = None

    moments = database.execution_options(**ONE_MOMENT)
    async with SnapshotSession(moments, expire_on_commit=False, autoflush=False) as session:
        event.listen(session.sync_session, "after_begin", serve)
        event.listen(session.sync_session, "after_transaction_end", let_go)
        try:
            yield session
        except Exception as error:
            if driver is not None and driver.has_lost_transaction:
                raise TransactionEndedError(ENDED) from error
            raise
        if driver is not None and driver.has_lost_transaction:
            raise TransactionEndedError(ENDED)


async def lift_limits(session: AsyncSession, limit: timedelta) -> None:
    """Let the driver wait `limit` for an answer until the session's transaction has ended.

    For work that has lifted the server's own limits for its transaction.
    """
    driver = await driver_of(session)
    driver.wait_for_answers(terms_of(limit).patience_s)


async def driver_of(session: AsyncSession) -> Any:  # noqa: ANN401 - asyncpg carries no types
    """Return the asyncpg connection of the session's transaction, which is open for certain.

    In a transaction of SQLAlchemy's own, BEGIN goes out with its first statement and not before; a
    statement given straight to the driver ahead of that would commit by itself.
    """
    driver: Any = session.info.get(_DRIVER)
    if driver is not None:
        return driver
    connection = await session.connection()
    driver = (await connection.get_raw_connection()).driver_connection
    if not driver.is_in_transaction():
        await session.execute(text("SELECT 1"))
    return driver
