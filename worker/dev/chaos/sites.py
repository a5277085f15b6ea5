"""Where chaos may happen: on servers of its own, or on ones that are marked for it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError
from sqlalchemy import make_url

from worker.dev.servers import EmbeddedError, PostgresServer, Stack, ValkeyServer
from worker.errors import StartupError

MARK: Final = "teller:may-be-flushed"
"""A key that says that this Redis may lose everything."""
DATABASE_SUFFIXES: Final = ("_test", "_chaos")


@dataclass(frozen=True, slots=True)
class Site:
    """The servers, and what of them can be hurt."""

    database_url: str
    redis_url: str
    directory: Path
    """For the workers' logs."""
    postgres: PostgresServer | None = None
    valkey: ValkeyServer | None = None

    @property
    def is_ours(self) -> bool:
        """Whether the servers were started here, so that anything can be done to them."""
        return self.postgres is not None and self.valkey is not None


@contextmanager
def site(database_url: str | None, redis_url: str | None) -> Iterator[Site]:
    """Yield the given servers, or new ones that wait for the disk as production does.

    The directory with the workers' logs is left behind, for whoever wants to read them.

    Raises:
        StartupError: only one URL is given, or a server cannot be started.
    """
    directory = Path(tempfile.mkdtemp(prefix="teller-chaos-"))
    if database_url and redis_url:
        yield Site(database_url, redis_url, directory)
        return
    if database_url or redis_url:
        raise StartupError(
            "chaos wants DATABASE_URL and REDIS_URL, both marked as tests', or neither: "
            "then it starts servers of its own"
        )
    try:
        stack = Stack.start(directory, durable=True)
    except EmbeddedError as error:
        raise StartupError(str(error)) from error
    try:
        with stack:
            urls = stack.database_url, stack.redis_url
            yield Site(*urls, directory, stack.postgres, stack.valkey)
    finally:
        for server in (stack.postgres, stack.valkey):
            shutil.rmtree(server.directory, ignore_errors=True)


async def refuse_production(place: Site) -> None:
    """Let only servers pass that are marked as tests'.

    Raises:
        StartupError: one is not; the message says how to mark it.
    """
    if place.is_ours:
        return
    name = make_url(place.database_url).database or ""
    if not name.endswith(DATABASE_SUFFIXES):
        raise StartupError(
            f"the database {name!r} is not marked as a test's: its name must end with "
            f"{' or '.join(DATABASE_SUFFIXES)}"
        )
    redis = Redis.from_url(place.redis_url, socket_connect_timeout=2)
    try:
        marked = await redis.exists(MARK)
    except (RedisError, OSError) as error:
        raise StartupError("cannot reach Redis: check REDIS_URL, and that it is up") from error
    finally:
        await redis.aclose()
    if not marked:
        raise StartupError(
            f"this Redis is not marked as a test's, and chaos empties it: say there SET {MARK} 1"
        )
