"""Lanes: jobs that contend for the same rows queue up before they take a connection.

A row lock would make them queue as well, but each with a connection and an open transaction. Two
at a time per key are best: one holds the lock, the next has its statement waiting there. Lanes
save work and guarantee nothing: correctness is the database's alone.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

WIDTH: Final = 2
WAIT_MAX_S: Final = 10.0
"""A job that has waited this long goes ahead anyway: a lane must never stop it."""


class Lanes:
    """The lanes of one process, by key; a key that nobody holds takes no memory."""

    def __init__(self, width: int = WIDTH) -> None:
        self._width = width
        self._inside: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def pass_through(self, keys: "Iterable[str]") -> "Passage":
        """Return a context manager that holds a place in each key's lane for its block."""
        return Passage(self, keys)

    def enter_free(self, key: str) -> bool:
        """Take a place in a key's lane if there is one."""
        inside = self._inside.get(key, 0)
        if inside >= self._width:
            return False
        self._inside[key] = inside + 1
        return True

    async def enter(self, key: str) -> None:
        """Wait for a place in a key's lane, first come, first served."""
        if self.enter_free(key):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(key)  # the place was given to us in the same moment: pass it on
            else:
                self._step_out(key, turn)
            raise

    def _step_out(self, key: str, turn: "asyncio.Future[None]") -> None:
        """Give up waiting; whoever left between the cancellation and now has passed us over."""
        queue = self._waiting.get(key)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        if not queue:
            del self._waiting[key]

    def leave(self, key: str) -> None:
        """Give the place to the next in line, or give it up."""
        queue = self._waiting.get(key)
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._waiting[key]
            if not turn.done():
                turn.set_result(None)
                return
        left = self._inside[key] - 1
        if left:
            self._inside[key] = left
        else:
            del self._inside[key]


class Passage:
    """Places in several lanes, for as long as a block runs."""

    __slots__ = ("_held", "_lanes", "_wanted")

    def __init__(self, lanes: Lanes, keys: "Iterable[str]") -> None:
        self._lanes = lanes
        # In order of keys, so that two jobs with keys in common cannot wait for each other.
        self._wanted = sorted(set(keys), reverse=True)
        self._held: list[str] = []

    async def __aenter__(self) -> None:
        """Wait for all places, at most `WAIT_MAX_S`."""
        try:
            while self._wanted:
                if not self._lanes.enter_free(self._wanted[-1]):
                    async with asyncio.timeout(WAIT_MAX_S):
                        await self._wait_for_all()
                    return
                self._held.append(self._wanted.pop())
        except TimeoutError:
            pass
        except BaseException:
            self._leave()
            raise

    async def __aexit__(self, *_: object) -> None:
        """Leave them to the next."""
        self._leave()

    async def _wait_for_all(self) -> None:
        while self._wanted:
            await self._lanes.enter(self._wanted[-1])
            self._held.append(self._wanted.pop())

    def _leave(self) -> None:
        for key in self._held:
            self._lanes.leave(key)
        self._held.clear()
