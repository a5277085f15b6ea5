"""What a PostgreSQL says of itself, as far as it matters to a worker. Nothing is changed."""

import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

ROUND_TRIPS: Final = 7

SETTINGS: Final = text("""
    SELECT current_setting('server_version_num')::int AS version,
           current_setting('server_encoding') AS encoding,
           current_setting('fsync') = 'on' AS fsync,
           current_setting('full_page_writes') = 'on' AS full_page_writes,
           current_setting('synchronous_commit') AS synchronous_commit,
           current_setting('autovacuum') = 'on' AS autovacuum,
           current_setting('max_connections')::int
             - current_setting('superuser_reserved_connections')::int AS connections_max,
           pg_is_in_recovery() AS is_standby,
           current_setting('transaction_read_only') = 'on' AS is_read_only,
           pg_backend_pid() AS backend,
           clock_timestamp() AS now
""")

ACTIVITY: Final = text("""
    SELECT count(*) FILTER (WHERE backend_type = 'client backend') AS connections,
           max(clock_timestamp() - xact_start)
             FILTER (WHERE backend_type = 'client backend' AND pid <> pg_backend_pid())
             AS oldest_transaction
    FROM pg_stat_activity
""")

# What a DBA has set for this role or database; a session's own settings hide it.
ROLE_SETTINGS: Final = text("""
    SELECT DISTINCT split_part(setting, '=', 1) AS name,
           substr(setting, strpos(setting, '=') + 1) AS value
    FROM pg_db_role_setting
    CROSS JOIN LATERAL unnest(setconfig) AS setting
    WHERE setrole IN (0, (SELECT oid FROM pg_roles WHERE rolname = current_user))
      AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    ORDER BY 1
""")

PRIVILEGES: Final = text("""
    SELECT table_name || ': ' || string_agg(privilege, ', ' ORDER BY privilege)
    FROM unnest(CAST(:tables AS text[])) AS table_name
    CROSS JOIN unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) AS privilege
    WHERE to_regclass(table_name) IS NOT NULL AND NOT has_table_privilege(table_name, privilege)
    GROUP BY table_name ORDER BY table_name
""")

TABLES: Final = ("batches", "jobs", "occurrences", "pauses", "schedules", "workers")


@dataclass(frozen=True, slots=True)
class PostgresFacts:
    """A server, its database and this role, at one moment."""

    version: int
    """As `server_version_num`: 180001 for 18.1."""
    encoding: str
    fsync: bool
    full_page_writes: bool
    synchronous_commit: str
    autovacuum: bool
    connections_max: int
    """For ordinary roles."""
    connections: int
    is_standby: bool
    is_read_only: bool
    is_pooled: bool
    """Whether a pooler answers in the server's place."""
    oldest_transaction: timedelta
    role_settings: dict[str, str]
    missing_privileges: tuple[str, ...]
    """A table and what is not granted on it."""
    round_trip_s: float
    """The median of a few."""
    clock_ahead_s: float
    """How far the server's clock is ahead of this machine's."""


async def inspect(connection: "AsyncConnection") -> PostgresFacts:
    """Return what the server at the other end of a connection says of itself."""
    round_trip_s = statistics.median([await _round_trip(connection) for _ in range(ROUND_TRIPS)])
    settings = (await connection.execute(SETTINGS)).one()
    heard_at = datetime.now(UTC)
    driver: Any = (await connection.get_raw_connection()).driver_connection
    activity = (await connection.execute(ACTIVITY)).one()
    roles = await connection.execute(ROLE_SETTINGS)
    missing = await connection.scalars(PRIVILEGES, {"tables": list(TABLES)})
    return PostgresFacts(
        version=settings.version,
        encoding=settings.encoding,
        fsync=settings.fsync,
        full_page_writes=settings.full_page_writes,
        synchronous_commit=settings.synchronous_commit,
        autovacuum=settings.autovacuum,
        connections_max=settings.connections_max,
        connections=activity.connections,
        is_standby=settings.is_standby,
        is_read_only=settings.is_read_only,
        # A pooler makes up the process id that it greets its clients with.
        is_pooled=driver.get_server_pid() != settings.backend,
        oldest_transaction=activity.oldest_transaction or timedelta(),
        role_settings={row.name: row.value for row in roles},
        missing_privileges=tuple(missing),
        round_trip_s=round_trip_s,
        clock_ahead_s=(settings.now - heard_at).total_seconds() + round_trip_s / 2,
    )


async def _round_trip(connection: "AsyncConnection") -> float:
    began = time.perf_counter()
    await connection.execute(text("SELECT 1"))
    return time.perf_counter() - began
