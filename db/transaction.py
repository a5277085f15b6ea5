"""A job's own transaction, driven through its asyncpg connection.

Every job has one, so what it costs counts: SQLAlchemy would send BEGIN and COMMIT through two more
layers each. The job's session works in this transaction like in any other, but does not own it: a
connection that returns to the pool with an uncommitted one is rolled back there
(`db.engine`).
"""

from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

BEGIN: Final = "BEGIN"

_DRIVER: Final = "teller_driver"
"""Where a job's session keeps the driver of its transaction."""


class NotYoursError(RuntimeError):
    """A handler tried to begin or end its transaction: all of it belongs to the job, or none."""


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


class OwnTransaction:
    """A new session in a transaction of its own, for the length of a block.

    Only `commit` keeps anything: however the block ends otherwise, it is rolled back.
    """

    __slots__ = ("_connection", "_engine", "_pooled", "session")

    def __init__(self, engine: "AsyncEngine") -> None:
        self._engine = engine

    async def __aenter__(self) -> Self:
        """Take a connection, and begin."""
        self._connection: AsyncConnection = await self._engine.connect()
        try:
            proxied: Any = self._connection.sync_connection
            self._pooled: Any = proxied.connection.dbapi_connection
            # SQLAlchemy must not begin one as well. The pool takes this for a transaction to roll
            # back, so it is set before there may be one, and reset after there is none.
            self._pooled.autocommit = True
            await self._pooled.driver_connection.execute(BEGIN)
        except BaseException:
            await self._connection.__aexit__(None, None, None)
            raise
        self.session = JobSession(self._connection, expire_on_commit=False, autoflush=False)
        self.session.info[_DRIVER] = self._pooled.driver_connection
        return self

    async def __aexit__(self, *error: object) -> None:
        """Release the session and the connection; what was not committed is rolled back."""
        try:
            await self.session.release()
        finally:
            if self._pooled.autocommit:
                # In a task that no cancellation cuts short.
                await self._connection.__aexit__(*error)
            else:
                await self._connection.close()

    async def restart(self) -> None:
        """Roll back, and begin again."""
        await self.session.release()
        await self._pooled.driver_connection.execute(f"ROLLBACK; {BEGIN}")

    async def commit(self) -> None:
        """Commit, with all that the session's objects have not written yet."""
        await self.session.flush()
        await self._pooled.driver_connection.execute("COMMIT")
        self._pooled.autocommit = False


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
