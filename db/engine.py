"""The engine and the session factory: every option that matters is written here."""

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import orjson
from sqlalchemy import event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)

from db.connection import (
    KEEPALIVE_COUNT,
    KEEPALIVE_IDLE_S,
    KEEPALIVE_INTERVAL_S,
    DriverConnection,
)
from db.connector import STATEMENTS_REMEMBERED_MAX, Connector
from db.errors import sqlstate_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.engine import Dialect, ExceptionContext, ExecutionContext
    from sqlalchemy.pool import PoolResetState

DRIVER: Final = "postgresql+asyncpg"

_connectors: "WeakKeyDictionary[Dialect, Connector]" = WeakKeyDictionary()

PUBLIC: Final = "public"
"""The schema where the tables are, if no other was chosen; every database has it."""

# Sent with the connection itself, or with BEGIN behind a pooler, so they cost no round trip. A lock
# waits less than a statement, a statement less than a transaction. A job whose timeout is longer
# moves them for its own transaction: see `db.transaction.terms_of`.
LOCK_TIMEOUT_MS: Final = 2_000
STATEMENT_TIMEOUT_MS: Final = 15_000
IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 15_000
TRANSACTION_TIMEOUT_MS: Final = 30_000

READ_ONLY: Final = "25006"
"""SQLSTATE of a write in a transaction that may only read."""

ONE_MOMENT: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
"""Execution options of a connection that reads one moment of the database and cannot write."""

CONNECT_TIMEOUT_S: Final = 5.0
POOL_TIMEOUT_S: Final = 5.0
# A little above the statement timeout: it also bounds asyncpg's own cancel handshake. Whoever lifts
# the statement timeout lifts this one too: `db.transaction.lift_limits`.
COMMAND_TIMEOUT_S: Final = STATEMENT_TIMEOUT_MS / 1000 + 5.0
POOL_RECYCLE_S: Final = 1_800


def create_engine(
    url: str, *, pool_size: int, application_name: str, schema: str = PUBLIC
) -> AsyncEngine:
    """Return the process's one engine; it connects on first use.

    No `pool_pre_ping`: it would double the round trips of a short transaction, and a stale
    connection is met by the retry table anyway. No overflow: the pool is the bound.

    Args:
        url: any PostgreSQL URL, as libpq takes it.
        pool_size: connections at most, as many as there are jobs at a time, plus the duties.
        application_name: shown in `pg_stat_activity`.
        schema: where Teller's own tables are; a handler still finds those in `public`.
    """
    connector = Connector(
        url,
        _settings(application_name, schema),
        connect_timeout_s=CONNECT_TIMEOUT_S,
        command_timeout_s=COMMAND_TIMEOUT_S,
    )
    engine = create_async_engine(
        f"{DRIVER}://",
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=POOL_TIMEOUT_S,
        pool_recycle=POOL_RECYCLE_S,
        pool_use_lifo=True,
        hide_parameters=True,  # bound values are names, e-mails and amounts: never in an error
        json_serializer=_to_json,
        json_deserializer=orjson.loads,
        # SQLAlchemy reads no URL: it would know less of libpq's than asyncpg does.
        connect_args={
            "async_creator_fn": connector.open,
            "prepared_statement_cache_size": STATEMENTS_REMEMBERED_MAX,
        },
    )
    _connectors[engine.dialect] = connector
    event.listen(engine.sync_engine, "checkout", _replace_if_closed)
    event.listen(engine.sync_engine, "reset", _end_own_transaction)
    event.listen(engine.sync_engine, "checkin", _close_if_unfit)
    for how in ("do_execute", "do_executemany", "do_execute_no_params"):
        event.listen(engine.sync_engine, how, _judge)
    event.listen(engine.sync_engine, "handle_error", _doom_if_read_only)
    return engine


def connector_of(engine: AsyncEngine) -> Connector:
    """Return what opens the connections of an engine, for one that its pool shall not hold."""
    return _connectors[engine.dialect]


@asynccontextmanager
async def open_engine(
    url: str, *, pool_size: int, application_name: str, schema: str = PUBLIC
) -> "AsyncIterator[AsyncEngine]":
    """Open an engine for a block, for example a command, and dispose of it. See `create_engine`."""
    engine = create_engine(
        url, pool_size=pool_size, application_name=application_name, schema=schema
    )
    try:
        yield engine
    finally:
        await engine.dispose()


def create_sessions(engine: AsyncEngine) -> async_sessionmaker[AsyncSession]:
    """Return the factory of short sessions: one per try of a job, never shared, never kept."""
    return async_sessionmaker(engine, expire_on_commit=False, autoflush=False)


def _replace_if_closed(adapter: Any, _record: object, _proxy: object) -> None:  # noqa: ANN401 - as SQLAlchemy's events are
    """Have the pool open another connection where this one is known to be lost."""
    if adapter.driver_connection.is_closed():
        raise DisconnectionError


def _end_own_transaction(adapter: Any, _record: object, state: "PoolResetState") -> None:  # noqa: ANN401
    """Roll back what `db.transaction` began and did not commit, before the pool has it back.

    Whatever state the driver reports: when it was cancelled within BEGIN, that is out of date.
    """
    if not adapter.autocommit:
        return
    adapter.autocommit = False
    if state.asyncio_safe:
        adapter.run_async(DriverConnection.roll_back)


def _close_if_unfit(adapter: Any, _record: object) -> None:  # noqa: ANN401
    """End a job's use of a connection, and the connection too if nobody should have it next."""
    if adapter is None or adapter.driver_connection.is_closed():
        return
    driver: DriverConnection = adapter.driver_connection
    if driver.is_unfit:
        driver.terminate()
    else:
        driver.retire()


def _judge(_cursor: object, statement: str, *rest: Any) -> None:  # noqa: ANN401
    """Judge a job's statement; the driver does not see again what SQLAlchemy has prepared."""
    context: ExecutionContext = rest[-1]
    driver: Any = context.root_connection.connection.driver_connection
    if driver.is_watched:
        driver.judge(statement)


def _doom_if_read_only(context: "ExceptionContext") -> None:
    """Have a connection replaced that refused to write."""
    if context.connection is None or context.connection.invalidated:
        return
    if sqlstate_of(context.original_exception) == READ_ONLY:
        driver: Any = context.connection.connection.driver_connection
        driver.doom()


def _settings(application_name: str, schema: str) -> dict[str, str]:
    return {
        "application_name": application_name,
        "timezone": "UTC",
        **_search_path(schema),
        "jit": "off",
        "lock_timeout": str(LOCK_TIMEOUT_MS),
        "statement_timeout": str(STATEMENT_TIMEOUT_MS),
        "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_TIMEOUT_MS),
        "transaction_timeout": str(TRANSACTION_TIMEOUT_MS),
        # A client that vanished holds its locks no longer than this.
        "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
        "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
        "tcp_keepalives_count": str(KEEPALIVE_COUNT),
    }


def _search_path(schema: str) -> dict[str, str]:
    """Return the names' look-up order; for `public` it stays what the role or database has."""
    return {} if schema == PUBLIC else {"search_path": f"{schema}, {PUBLIC}"}


def _to_json(value: Any) -> str:  # noqa: ANN401 - whatever JSON can hold
    return orjson.dumps(value).decode()
