"""What is wrong with Redis or PostgreSQL, in a word: for health, metrics and the log.

A server may answer and yet not serve: it is a replica that takes no writes, it is full, or it
throws away what it was given. Operators do something else about each.
"""

import asyncio
from typing import TYPE_CHECKING, Any, Final

from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from db.errors import diagnose

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redis.asyncio import Redis

AWAY: Final = "away"
REFUSED: Final = "access_denied"
READ_ONLY: Final = "read_only"
FULL: Final = "full"
REFUSES_JOBS: Final = "refuses_jobs"
EVICTS: Final = "evicts"
"""Redis has a limit of memory and throws away keys at will: also jobs that it alone has."""
SCHEMA_OUTDATED: Final = "schema_outdated"
PRIVILEGES_MISSING: Final = "privileges_missing"

ANSWER_WAIT_MAX_S: Final = 1.5
"""For Redis; less than the heartbeat waits for PostgreSQL."""

_POSTGRES: Final = {
    "25006": READ_ONLY,
    "53100": FULL,
    "42501": PRIVILEGES_MISSING,
    "42P01": SCHEMA_OUTDATED,
    "42703": SCHEMA_OUTDATED,
    "3F000": SCHEMA_OUTDATED,
    "3D000": "no_such_database",
    "28P01": REFUSED,
    "28000": REFUSED,
}


class NotServingError(Exception):
    """PostgreSQL answers, and no job could run there; the message is the trouble in a word."""


def postgres_trouble(error: BaseException) -> str:
    """Return what is wrong with PostgreSQL, from what the heartbeat raised."""
    if isinstance(error, NotServingError):
        return str(error)
    diagnosis = diagnose(error)
    return _POSTGRES.get(diagnosis.sqlstate or "", diagnosis.trouble.value)


async def redis_trouble(redis: "Redis") -> str | None:
    """Return what is wrong with Redis, as far as it says so itself; None where nothing is."""
    try:
        async with asyncio.timeout(ANSWER_WAIT_MAX_S):
            return trouble_in(await redis.info())
    except NoPermissionError:
        return None  # it answers, and this user may not ask for more
    except AuthenticationError:
        return REFUSED
    except (RedisError, OSError):
        return AWAY


def trouble_in(info: "Mapping[str, Any]") -> str | None:
    """Return what Redis' own description of itself says is wrong.

    >>> trouble_in({"role": "slave", "maxmemory": 0})
    'read_only'
    >>> trouble_in({"maxmemory": 10, "used_memory": 11, "maxmemory_policy": "noeviction"})
    'full'
    >>> trouble_in({"maxmemory": 10, "used_memory": 1, "maxmemory_policy": "allkeys-lru"})
    'evicts'
    >>> trouble_in({"role": "master", "maxmemory": 0, "used_memory": 1})
    """
    if info.get("role") == "slave":
        return READ_ONLY
    limit = info.get("maxmemory") or 0
    if limit and str(info.get("maxmemory_policy", "")).startswith("allkeys-"):
        return EVICTS
    if limit and info.get("used_memory", 0) >= limit:
        return FULL
    return None
