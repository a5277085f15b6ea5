"""A job's own transaction, driven through the session's asyncpg connection.

Every job has one, so what it costs counts: SQLAlchemy would send BEGIN and COMMIT through two more
layers each. Its session works in this transaction like in any other, but does not know its end: a
connection that returns to the pool with one that nobody committed is rolled back there
(`db.engine`).
"""

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

BEGIN_SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

_OWN: Final = "teller_own_transaction"
"""Where a session keeps its connection, beside the SQLAlchemy transaction that holds it."""


class TransactionGoneError(RuntimeError):
    """The job's transaction ended before its job did: nothing of it may count."""


class OwnTransaction:
    """A new session, in a transaction of its own, for the length of a block."""

    __slots__ = ("_session",)

    def __init__(self, sessions: "async_sessionmaker[AsyncSession]") -> None:
        self._session = sessions()

    async def __aenter__(self) -> "AsyncSession":
        """Begin; see `begin`."""
        try:
            await begin(self._session)
        except BaseException as error:
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self._session

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Close the session; what was not committed is rolled back."""
        if error is None:
            await self._session.close()
        else:
            # Its way of closing, in a task that no second cancellation cuts short.
            await self._session.__aexit__(kind, error, traceback)


async def begin(session: "AsyncSession", *, snapshot: bool = False) -> None:
    """Begin a transaction that only `commit` can commit; closing or rolling back undoes it.

    Args:
        session: in no transaction yet.
        snapshot: whether it reads one moment and cannot write.
    """
    connection: Any = await session.connection()
    adapter = connection.sync_connection.connection.dbapi_connection
    # SQLAlchemy must not begin one as well. The pool takes it for a transaction to roll back, so
    # it is set before there may be one, and reset after there is none.
    adapter.autocommit = True
    session.info[_OWN] = (session.sync_session.get_transaction(), adapter)
    await adapter.driver_connection.execute(BEGIN_SNAPSHOT if snapshot else "BEGIN")


async def commit(session: "AsyncSession") -> None:
    """Commit what `begin` began, with all that the session's objects have not written yet.

    Raises:
        TransactionGoneError: the session is not in that transaction any more.
    """
    await session.flush()
    adapter = _own_adapter(session)
    if adapter is None:
        raise TransactionGoneError(
            "the transaction is gone: a handler must not commit, roll back or close its session"
        )
    await adapter.driver_connection.execute("COMMIT")
    adapter.autocommit = False


async def driver_of(session: "AsyncSession") -> Any:  # noqa: ANN401 - asyncpg carries no types
    """Return the asyncpg connection of the session's transaction, which is open for certain.

    In a transaction of SQLAlchemy's own, BEGIN goes out with its first statement and not before; a
    statement given straight to the driver ahead of that would commit by itself.
    """
    adapter = _own_adapter(session)
    if adapter is not None:
        return adapter.driver_connection
    connection = await session.connection()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    if not driver.is_in_transaction():
        await session.execute(text("SELECT 1"))
    return driver


def _own_adapter(session: "AsyncSession") -> Any:  # noqa: ANN401 - SQLAlchemy's, without types
    """Return the connection of a transaction that `begin` began, if the session is still in it."""
    transaction, adapter = session.info.get(_OWN, (None, None))
    held = transaction is not None and transaction is session.sync_session.get_transaction()
    return adapter if held else None
