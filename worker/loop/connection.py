"""Whether Redis answers: every command of the loop goes through here, and nothing else decides."""

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

logger = logging.getLogger("arq.worker")

LOSS_ERRORS: Final = (RedisError, OSError)
"""What a Redis that is away, silent, loading, read-only or full raises.

`TimeoutError` is an `OSError`; redis-py lets a refused connection through as a bare `OSError`.
"""

COMMAND_TIMEOUT_S: Final = 1.5
"""A Redis that is silent this long is away, and its connection with it."""
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
BACKOFF_DOUBLINGS_MAX: Final = 16


def backoff_s(attempt: int, luck: float) -> float:
    """Return the wait before the attempt after `attempt` failures; `luck` in [0, 1) spreads it.

    >>> backoff_s(0, 0.0), backoff_s(3, 0.0), backoff_s(99, 1.0)
    (0.025, 0.2, 2.0)
    """
    ceiling = min(BACKOFF_MAX_S, BACKOFF_MIN_S * (1 << min(attempt, BACKOFF_DOUBLINGS_MAX)))
    return ceiling * (1 + luck) / 2


class RedisLink:
    """The state of the connection, and who wants to know when it changes."""

    def __init__(self) -> None:
        self.available = True
        self.lost_at: float | None = None
        """Unix time since which Redis is away, None while it answers."""
        self.back = asyncio.Event()
        """Set while Redis answers."""
        self.back.set()
        self.on_lost: list[Callable[[], None]] = []
        self.on_back: list[Callable[[], None]] = []

    async def call(self, command: "Awaitable[T]", *, patience_s: float = COMMAND_TIMEOUT_S) -> T:
        """Await a command; a failure to answer is noted, and raised.

        The limit is ours and not the connection's, so that it holds for any pool we are given,
        and so that a job may still block on Redis for as long as it likes.
        """
        answer = await self.watch(command, patience_s=patience_s)
        self.regain()
        return answer

    async def watch(self, work: "Awaitable[T]", *, patience_s: float = COMMAND_TIMEOUT_S) -> T:
        """Like `call`, for work that may not ask Redis anything and then proves nothing."""
        try:
            async with asyncio.timeout(patience_s):
                return await work
        except LOSS_ERRORS as error:
            self.lose(error)
            raise

    def lose(self, error: BaseException) -> None:
        """Note that Redis is away, once."""
        if not self.available:
            return
        self.available = False
        self.lost_at = time.time()
        self.back.clear()
        logger.warning("redis is away, claiming stops: %s: %s", type(error).__name__, error)
        _tell(self.on_lost)

    def regain(self) -> None:
        """Note that Redis answers again, once."""
        if self.available:
            return
        away_s = time.time() - (self.lost_at or time.time())
        self.available = True
        self.lost_at = None
        self.back.set()
        logger.warning("redis is back after %.1fs", away_s)
        _tell(self.on_back)


def jitter() -> float:
    """Return a number in [0, 1) that keeps workers from moving in step."""
    return random.random()  # noqa: S311 - spreading load, not keeping secrets


def _tell(subscribers: "list[Callable[[], Any]]") -> None:
    """Call everyone who asked; a subscriber's error is its own."""
    for subscriber in subscribers:
        try:
            subscriber()
        except Exception:
            logger.exception("a subscriber to the redis link failed")
