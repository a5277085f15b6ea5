"""Chaos must outlast its own faults: it repeats a statement until the server is back."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError

from db.errors import Trouble, diagnose

T = TypeVar("T")

RETRY_MAX_S: Final = 300.0
"""More than the longest fault, several of which may follow each other."""
PAUSE_S: Final = 0.1

_FINAL: Final = frozenset({Trouble.ALARM, Trouble.FAILURE, Trouble.UNIQUE})


async def retry_until_up(unit: Callable[[], Awaitable[T]]) -> T:
    """Do something that is safe to repeat until it works, for at most `RETRY_MAX_S`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + RETRY_MAX_S
    while True:
        try:
            return await unit()
        except (RedisError, OSError, DBAPIError) as error:
            if loop.time() > deadline or _is_final(error):
                raise
            await asyncio.sleep(PAUSE_S)


def _is_final(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and diagnose(error).trouble in _FINAL
