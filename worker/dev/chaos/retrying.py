"""Chaos must outlast its own faults: it repeats a statement until the server is back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from db.errors import Trouble, diagnose

T = TypeVar("T")

RETRY_MAX_S: Final = 300.0
"""More than the longest fault, several of which may follow each other."""
PAUSE_S: Final = 0.1

MISSED: Final = (RedisError, OSError, DBAPIError, PoolTimeoutError)
"""What is raised while a server is away, or while all of our connections wait for it."""

_FINAL: Final = frozenset({Trouble.ALARM, Trouble.FAILURE, Trouble.UNIQUE})


async def retry_until_up(unit: Callable[[], Awaitable[T]]) -> T:
    """Do something that is safe to repeat until it works, for at most `RETRY_MAX_S`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RETRY_MAX_S
    while True:
        try:
            return await unit()
        except MISSED as error:
            if loop.time() > deadline or _is_final(error):
                raise
            await asyncio.sleep(PAUSE_S)


def _is_final(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and diagnose(error).trouble in _FINAL
