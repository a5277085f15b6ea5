"""Bring a database to the newest schema; safe when several processes start at once.

The tables may share a database with an application's own: in a schema of theirs, and always with a
version table of their own, so that the application's Alembic and this one never meet.
"""

from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.connector import UnsuitableDatabaseError
from db.engine import PUBLIC
from db.errors import Trouble, diagnose, sqlstate_of
from db.kinds import register_kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from alembic.config import Config
    from sqlalchemy import Connection
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

    from db.kinds import KindTerms

MIGRATIONS: Final = Path(__file__).parent / "migrations"
VERSIONS: Final = MIGRATIONS / "versions"
VERSION_TABLE: Final = "teller_version"
MIGRATION_LOCK_ID: Final = 0x7E11E2  # any constant that only this project uses
WAIT_FOR_TURN_MS: Final = 120_000  # how long a late starter waits for the one that migrates
DDL_LOCK_TIMEOUT_MS: Final = 5_000  # a migration gives up rather than block the running workers

TAKEN: Final = frozenset({"42P07", "42710", "42723"})
"""SQLSTATEs of a table, an object and a function that exist already."""

LOCK: Final = text("SELECT pg_advisory_xact_lock(:id)")


class MigrationBusyError(Exception):
    """Another process migrates this database, and has done so for too long."""


class SchemaOutdatedError(Exception):
    """The database's schema is older than this code."""


async def migrate(
    engine: "AsyncEngine", kinds: "Mapping[str, KindTerms]", schema: str = PUBLIC
) -> str:
    """Run every missing migration, register the kinds of job, and return the revision reached.

    Where a newer release has migrated already, nothing is done: its tables and kinds stay.

    Args:
        engine: the database, by two connections at least.
        kinds: on what terms each kind is accepted; one that is gone from the code stays
            registered, since older workers may still serve it.
        schema: where the tables are; made if it is missing.

    Raises:
        UnsuitableDatabaseError: the database's encoding is not UTF8, or the schema has a table of
            somebody else's under one of our names.
        MigrationBusyError: it was not this process's turn within `WAIT_FOR_TURN_MS`.
    """
    async with _turn(engine), _migrating(engine) as connection:
        found = await _revision(connection, schema)
        if found is not None and _is_newer(found):
            return found
        await _make_schema(connection, schema)
        await _upgrade(connection, schema)
        await register_kinds(connection, kinds)
        await connection.commit()
    return newest_revision()


async def require_current(engine: "AsyncEngine", schema: str = PUBLIC) -> None:
    """Check that the schema is this code's, or newer.

    Raises:
        SchemaOutdatedError: it is older, or there is none; the message says what to do.
    """
    async with engine.connect() as connection:
        found = await _revision(connection, schema)
    if not serves(found):
        raise SchemaOutdatedError(
            f"the tables in schema {schema} are at revision {found or 'none'}, this code needs "
            f"{newest_revision()}: run `python -m worker migrate`, or check TELLER_SCHEMA"
        )


def serves(revision: str | None) -> bool:
    """Return whether this code works on tables of that revision: its own, or a newer one.

    A newer one is fine: a deploy migrates first, and migrations keep the last release's code
    working.
    """
    return revision is not None and (revision == newest_revision() or _is_newer(revision))


def _is_newer(revision: str) -> bool:
    """Return whether a revision is one that this code does not have yet."""
    return revision not in _revisions() and revision > newest_revision()


def newest_revision() -> str:
    """Return the last revision in `db/migrations/versions`: a file's name begins with its own."""
    return max(_revisions())


@cache
def _revisions() -> frozenset[str]:
    return frozenset(path.name.partition("_")[0] for path in VERSIONS.glob("[0-9]*_*.py"))


@asynccontextmanager
async def _turn(engine: "AsyncEngine") -> "AsyncIterator[None]":
    """Hold the migration lock.

    On a connection of its own, in a transaction that does nothing else: each migration commits for
    itself, and a lock of the session would be lost, or left behind, behind a pooler.
    """
    async with _patient(engine, lock_timeout_ms=WAIT_FOR_TURN_MS) as connection:
        try:
            await connection.execute(LOCK, {"id": MIGRATION_LOCK_ID})
        except DBAPIError as error:
            if diagnose(error).trouble is not Trouble.LOCK_TIMEOUT:
                raise
            raise MigrationBusyError(
                "another process has been migrating this database for "
                f"{WAIT_FOR_TURN_MS / 1000:g} s: wait for it to end, or look for it in "
                "pg_stat_activity"
            ) from error
        yield


@asynccontextmanager
async def _migrating(engine: "AsyncEngine") -> "AsyncIterator[AsyncConnection]":
    async with _patient(engine, lock_timeout_ms=DDL_LOCK_TIMEOUT_MS) as connection:
        yield connection


@asynccontextmanager
async def _patient(
    engine: "AsyncEngine", *, lock_timeout_ms: int
) -> "AsyncIterator[AsyncConnection]":
    """Open a connection whose transactions may take however long, but for their locks.

    The driver waits as long: a lost connection is noticed by its keepalive.
    """
    async with engine.connect() as connection:
        driver: Any = (await connection.get_raw_connection()).driver_connection
        _require_utf8(driver.get_settings().server_encoding)
        no_limits = ["statement_timeout", "idle_in_transaction_session_timeout"]
        if driver.has_transaction_timeout:
            no_limits.append("transaction_timeout")
        lifted = "".join(f"; SET LOCAL {name} = 0" for name in no_limits)
        driver.limit(f"; SET LOCAL lock_timeout = {lock_timeout_ms}{lifted}", None)
        yield connection


def _require_utf8(encoding: str) -> None:
    if encoding != "UTF8":
        raise UnsuitableDatabaseError(
            f"the database's encoding is {encoding}, and names and payloads need UTF8: "
            "create the database with ENCODING 'UTF8' TEMPLATE template0"
        )


def alembic_config() -> "Config":
    """Return alembic's configuration; the connection goes into its `attributes`."""
    # Ten megabytes that a worker never needs: it only looks at the revision.
    from alembic.config import Config

    config = Config()
    # Alembic reads `%` as interpolation, and a folder may well have one in its name.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


async def _make_schema(connection: "AsyncConnection", schema: str) -> None:
    """Make the schema, unless it is there: then no right to make one is needed."""
    if await connection.scalar(text("SELECT to_regnamespace(:name)"), {"name": schema}) is None:
        await connection.execute(text(f"CREATE SCHEMA {schema}"))
        await connection.commit()


async def _upgrade(connection: "AsyncConnection", schema: str) -> None:
    try:
        await connection.run_sync(_run_migrations, schema)
    except Exception as error:  # SQLAlchemy's, or the driver's own: a script goes to it directly
        if sqlstate_of(error) not in TAKEN:
            raise
        await connection.rollback()
        raise UnsuitableDatabaseError(
            f"schema {schema} has something of another application's under a name that is needed "
            "here: set TELLER_SCHEMA to a schema of Teller's own, such as teller"
        ) from error


def _run_migrations(connection: "Connection", schema: str) -> None:
    from alembic import command

    config = alembic_config()
    config.attributes.update(connection=connection, schema=schema)
    command.upgrade(config, "head")


async def _revision(connection: "AsyncConnection", schema: str) -> str | None:
    """Return the revision of the tables in a schema; None if it has none."""
    table = f"{schema}.{VERSION_TABLE}"
    if await connection.scalar(text("SELECT to_regclass(:table)"), {"table": table}) is None:
        return None
    found = text(f"SELECT version_num FROM {table}")  # noqa: S608 - a schema's name by settings
    revision: str | None = await connection.scalar(found)
    return revision
