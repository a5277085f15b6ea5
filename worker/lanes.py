"""Lanes: jobs that contend for the same rows queue up before they take a connection.

A row lock would make them queue as well, but each with a connection and an open transaction. Two
at a time per key are best: one holds the lock, the next has its statement waiting there. Lanes
save work and guarantee nothing: correctness is the database's alone.
"""

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

WIDTH: Final = 2
WAIT_MAX_S: Final = 10.0
"""A job that has waited this long goes ahead anyway: a lane must never stop it."""


class Lanes:
    """The lanes of one process, by key; a key that nobody holds takes no memory."""

    def __init__(self, width: int = WIDTH) -> None:
        self._width = width
        self._inside: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def pass_through(self, keys: "Iterable[str]") -> "AsyncIterator[None]":
        """Hold a place in each key's lane for the block.

        In order of keys, so that two jobs with keys in common cannot wait for each other.
        """
        held: list[str] = []
        try:
            try:
                async with asyncio.timeout(WAIT_MAX_S):
                    for key in sorted(set(keys)):
                        await self._enter(key)
                        held.append(key)
            except TimeoutError:
                pass
            yield
        finally:
            for key in held:
                self._leave(key)

    async def _enter(self, key: str) -> None:
        inside = self._inside.get(key, 0)
        if inside < self._width:
            self._inside[key] = inside + 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(key)  # the place was given to us in the same moment: pass it on
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

    def _leave(self, key: str) -> None:
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
