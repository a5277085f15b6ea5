"""Whether Redis answers: every command of the loop passes through here, and only here."""

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
"""The errors of a Redis that is away, silent, loading, read-only or full.

`TimeoutError` is an `OSError`; redis-py lets a refused connection through as a bare `OSError`.
"""

COMMAND_TIMEOUT_S: Final = 1.5
"""A Redis that does not answer for this long counts as away."""
BACKOFF_MIN_S: Final = 0.05
BACKOFF_MAX_S: Final = 2.0
BACKOFF_DOUBLINGS_MAX: Final = 16


def backoff_s(attempt: int, jitter: float) -> float:
    """Return the wait before the attempt after `attempt` failures; `jitter` in [0, 1) spreads it.

    >>> backoff_s(0, 0.0), backoff_s(3, 0.0), backoff_s(99, 1.0)
    (0.025, 0.2, 2.0)
    """
    ceiling = min(BACKOFF_MAX_S, BACKOFF_MIN_S * (1 << min(attempt, BACKOFF_DOUBLINGS_MAX)))
    return ceiling * (1 + jitter) / 2


class Connection:
    """Whether Redis answers at the moment, and whom to notify when that changes."""

    def __init__(self) -> None:
        self.available = True
        self.lost_at: float | None = None
        """Unix time since which Redis is away, None while it answers."""
        self.back = asyncio.Event()
        """Set while Redis answers."""
        self.back.set()
        self.on_lost: list[Callable[[], None]] = []
        """Called when Redis stops answering; must not block."""
        self.on_back: list[Callable[[], None]] = []
        """Called when Redis answers again; must not block."""

    async def call(self, command: "Awaitable[T]", *, patience_s: float = COMMAND_TIMEOUT_S) -> T:
        """Await a command, and note whether Redis answered.

        The time limit is set here and not on the socket, so that it holds for any pool a caller
        passes in, and so that a job may still block on Redis for as long as it likes.

        Raises:
            RedisError, OSError: Redis did not answer, or refused the command.
        """
        answer = await self.watch(command, patience_s=patience_s)
        self.regain()
        return answer

    async def watch(self, work: "Awaitable[T]", *, patience_s: float = COMMAND_TIMEOUT_S) -> T:
        """Like `call`, for work that may send no command, and so may prove nothing by ending."""
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
        _notify(self.on_lost)

    def regain(self) -> None:
        """Note that Redis answers again, once."""
        if self.available:
            return
        away_s = time.time() - (self.lost_at or time.time())
        self.available = True
        self.lost_at = None
        self.back.set()
        logger.warning("redis is back after %.1fs", away_s)
        _notify(self.on_back)


def draw_jitter() -> float:
    """Return a random number in [0, 1), so that workers do not move in step."""
    return random.random()  # noqa: S311 - spreading load, not keeping secrets


def _notify(subscribers: "list[Callable[[], Any]]") -> None:
    """Call every subscriber; the error of one does not keep the others from being called."""
    for subscriber in subscribers:
        try:
            subscriber()
        except Exception:
            logger.exception("a subscriber to the redis connection failed")
