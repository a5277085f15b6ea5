"""Whether Redis answers: every command of the loop passes through here, and only here."""

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

from redis.exceptions import (
    ClusterError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

logger = logging.getLogger("arq.worker")

LOSS_ERRORS: Final = (RedisError, OSError)
"""What a command may raise: of a Redis that is away, silent, loading, read-only or full, and of
one that refuses this command alone (`is_refusal`).

`TimeoutError` is an `OSError`; redis-py lets a refused connection through as a bare `OSError`.
"""

_CANNOT_SERVE: Final = (
    *("READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "NOPERM", "OOM", "MISCONF", "NOREPLICAS"),
    *("UNBLOCKED", "BUSY", "TRYAGAIN", "CLUSTERDOWN", "WRONGPASS"),
)
"""The first words of errors that are about the server, or about what this user may do."""
_CANNOT_SERVE_TYPES: Final = (ReadOnlyError, OutOfMemoryError, NoPermissionError, ClusterError)
"""Where redis-py makes a type of the first word, and removes it."""

COMMAND_TIMEOUT_S: Final = 1.5
"""A Redis that does not answer for this long counts as away, unless the line is known as slow."""
PATIENCE_MAX_S: Final = 6.0
"""The longest wait for a small answer: four round trips of more than a second, as a new connection
needs. It doubles from `COMMAND_TIMEOUT_S` with each answer that does not come."""
PATIENCE_PER_ANSWER: Final = 6.0
"""How much longer than the last answer took the next one may take."""
PATIENCE_DECAY: Final = 0.9
"""What is left of the patience after each answer that came sooner."""
SLOW_LINE_BYTES_PER_S: Final = 64 * 1024
"""What a line carries at least: a large command or answer may take this much longer."""
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


def is_refusal(error: BaseException) -> bool:
    """Return whether Redis serves, and only refused this command: a key has a wrong type, say.

    >>> is_refusal(ResponseError("WRONGTYPE Operation against a key")), is_refusal(OSError())
    (True, False)
    >>> is_refusal(ResponseError("MISCONF Redis is configured")), is_refusal(ReadOnlyError())
    (False, False)
    """
    if not isinstance(error, ResponseError) or isinstance(error, _CANNOT_SERVE_TYPES):
        return False
    return not str(error).startswith(_CANNOT_SERVE)


def is_loss(error: BaseException) -> bool:
    """Return whether Redis is away, or cannot serve."""
    return isinstance(error, LOSS_ERRORS) and not is_refusal(error)


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
        self.patience_s = COMMAND_TIMEOUT_S
        """How long the next small answer may take; it follows the line."""

    async def call(self, command: "Awaitable[T]", *, size: int = 0) -> T:
        """Await a command, and note whether Redis answered.

        The time limit is set here and not on the socket, so that it holds for any pool a caller
        passes in, and so that a job may still block on Redis for as long as it likes.

        Args:
            command: what to await.
            size: the bytes that it sends, or that its answer is known to have.

        Raises:
            RedisError, OSError: Redis did not answer, or refused the command.
        """
        answer = await self.watch(command, size=size)
        self.regain()
        return answer

    async def watch(self, work: "Awaitable[T]", *, size: int = 0) -> T:
        """Like `call`, for work that may send no command, and so may prove nothing by ending."""
        try:
            return await self.attempt(work, size=size)
        except LOSS_ERRORS as error:
            if not is_refusal(error):
                self.lose(error)
            raise

    async def attempt(self, work: "Awaitable[T]", *, size: int = 0) -> T:
        """Await a command that may fail by its own fault: whatever it raises is not noted."""
        now = asyncio.get_running_loop().time
        started_at = now()
        try:
            async with asyncio.timeout(self.patience_s + size / SLOW_LINE_BYTES_PER_S):
                answer = await work
        except TimeoutError:
            self.patience_s = min(2 * self.patience_s, PATIENCE_MAX_S)
            raise
        if not size:
            wanted_s = max(
                COMMAND_TIMEOUT_S,
                PATIENCE_DECAY * self.patience_s,
                PATIENCE_PER_ANSWER * (now() - started_at),
            )
            self.patience_s = min(wanted_s, PATIENCE_MAX_S)
        return answer

    def lose(self, error: BaseException) -> None:
        """Note that Redis is away, once."""
        if not self.available:
            return
        self.available = False
        self.lost_at = time.time()
        self.back.clear()
        refuses = isinstance(error, NoPermissionError)
        what = "redis refuses what the worker needs" if refuses else "redis is away"
        logger.warning("%s, claiming stops: %s: %s", what, type(error).__name__, error)
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
