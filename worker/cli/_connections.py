"""The database and Redis, opened for one command; and the one message for a database out of reach.

Apart from `_options`, so that a command which needs neither imports neither.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis
from sqlalchemy.exc import DBAPIError

from db.engine import create_sessions, open_engine
from db.errors import Trouble, diagnose
from worker.errors import StartupError
from worker.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

    from worker.settings import Settings

REDIS_CONNECT_TIMEOUT_S: Final = 2


@dataclass(frozen=True, slots=True)
class Connections:
    """What a command works with. Each connects with its first use."""

    settings: "Settings"
    engine: "AsyncEngine"
    sessions: "async_sessionmaker[AsyncSession]"
    redis: Redis


@asynccontextmanager
async def open_connections(command: str, *, pool_size: int = 1) -> AsyncIterator[Connections]:
    """Open what the settings name, and close it when the command is done.

    Args:
        command: shown in `pg_stat_activity`, behind "teller-".
        pool_size: connections to the database at most.

    Raises:
        StartupError: a setting is wrong, or the database cannot be reached.
    """
    settings = load_settings()
    with reporting_unreachable_database():
        redis = Redis.from_url(
            str(settings.redis_url), socket_connect_timeout=REDIS_CONNECT_TIMEOUT_S
        )
        engines = open_engine(
            str(settings.database_url),
            pool_size=pool_size,
            application_name=f"teller-{command}",
        )
        async with redis, engines as engine:
            yield Connections(settings, engine, create_sessions(engine), redis)


@contextmanager
def reporting_unreachable_database() -> Iterator[None]:
    """Turn what the drivers raise for a lost or refused connection into one line for a person.

    Raises:
        StartupError: the database cannot be reached.
    """
    try:
        yield
    except (OSError, DBAPIError) as error:
        if diagnose(error).trouble is not Trouble.CONNECTION:
            raise
        raise StartupError(
            "cannot reach the database: check DATABASE_URL, and that PostgreSQL is up"
        ) from error
