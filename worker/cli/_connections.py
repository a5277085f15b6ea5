"""The database and Redis, opened for one command, after a look at whether they serve it.

Apart from `_options`, so that a command which needs neither imports neither.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

from db.engine import create_sessions, open_engine
from db.migrate import require_current
from worker.cli._faults import explaining_servers
from worker.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from worker.settings import Settings

REDIS_CONNECT_TIMEOUT_S: Final = 2
REDIS_ANSWER_TIMEOUT_S: Final = 5


@dataclass(frozen=True, slots=True)
class Connections:
    """What a command works with. Each connects with its first use."""

    settings: "Settings"
    engine: "AsyncEngine"
    sessions: "async_sessionmaker[AsyncSession]"
    redis: Redis


@asynccontextmanager
async def open_connections(
    command: str, *, pool_size: int = 1, migrated: bool = True
) -> AsyncIterator[Connections]:
    """Open what the settings name, and close it when the command is done.

    It begins by reading the schema's version: a database that is away, refuses or was never
    migrated is told at once and in one way, before a command has done anything.

    Args:
        command: shown in `pg_stat_activity`, behind "teller-".
        pool_size: connections to the database at most.
        migrated: whether the command needs this code's schema.

    Raises:
        StartupError: a setting is wrong, or a server does not serve; the message says what to do.
    """
    settings = load_settings()
    with explaining_servers():
        redis = Redis.from_url(
            str(settings.redis_url),
            socket_connect_timeout=REDIS_CONNECT_TIMEOUT_S,
            socket_timeout=REDIS_ANSWER_TIMEOUT_S,
        )
        engines = open_engine(
            settings.database_url,
            pool_size=pool_size,
            application_name=f"teller-{command}",
            schema=settings.database_schema,
        )
        async with redis, engines as engine:
            if migrated:
                await require_current(engine, settings.database_schema)
            yield Connections(settings, engine, create_sessions(engine), redis)
