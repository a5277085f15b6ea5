"""Keyed semaphores: jobs that contend for the same rows wait before they take a connection.

A row lock would make them wait as well, but each with a connection and an open transaction. Two at
a time per key are best: one holds the lock, the statement of the next waits for it in PostgreSQL.
They save work and guarantee nothing: correctness is the database's alone. Whoever waits gives its
slot away, so that one key that is held for long holds up nobody else.
"""

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.loop.slots import Slot

HOLDERS_PER_KEY_MAX: Final = 2
WAIT_MAX_S: Final = 10.0
"""A job that has waited this long goes back to the queue: others may be behind it there."""


class KeyedSemaphores:
    """The semaphores of one process, by key; a key that no job holds takes no memory."""

    def __init__(self, holders_max: int = HOLDERS_PER_KEY_MAX) -> None:
        self._holders_max = holders_max
        self._holders: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """Return how many keys are held or waited for."""
        return len(self._holders | self._waiting)

    def hold(self, keys: "Iterable[str]", slot: "Slot | None" = None) -> "Hold":
        """Return a context manager that holds the semaphore of each key for its block.

        Args:
            keys: what the job contends for.
            slot: the job's, to be given away while it waits; None where it has none to give.
        """
        return Hold(self, keys, slot)

    def try_acquire(self, key: str) -> bool:
        """Acquire a key's semaphore if that needs no wait."""
        holders = self._holders.get(key, 0)
        if holders >= self._holders_max:
            return False
        self._holders[key] = holders + 1
        return True

    async def acquire(self, key: str) -> None:
        """Acquire a key's semaphore, first come, first served."""
        if self.try_acquire(key):
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(key)  # acquired in the same moment: pass it on
            else:
                self._stop_waiting(key, turn)
            raise

    def _stop_waiting(self, key: str, turn: "asyncio.Future[None]") -> None:
        """Leave the queue; a release since the cancellation may have removed the turn already."""
        queue = self._waiting.get(key)
        if queue is None or turn not in queue:
            return
        queue.remove(turn)
        if not queue:
            del self._waiting[key]

    def release(self, key: str) -> None:
        """Hand a key's semaphore to the next in line, or give it back."""
        queue = self._waiting.get(key)
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._waiting[key]
            if not turn.done():
                turn.set_result(None)
                return
        left = self._holders[key] - 1
        if left:
            self._holders[key] = left
        else:
            del self._holders[key]


class Hold:
    """Several semaphores, held for as long as a block runs."""

    __slots__ = ("_held", "_semaphores", "_slot", "_wanted")

    def __init__(
        self, semaphores: KeyedSemaphores, keys: "Iterable[str]", slot: "Slot | None"
    ) -> None:
        self._semaphores = semaphores
        self._slot = slot
        # In order of keys, so that two jobs with keys in common cannot wait for each other.
        self._wanted = sorted(set(keys), reverse=True)
        self._held: list[str] = []

    async def __aenter__(self) -> bool:
        """Take all keys, waiting without a slot at most `WAIT_MAX_S`.

        Returns:
            False when it is not this job's turn: it has waited too long, or may not wait at all
            because too many do. Then it holds no key, and goes back to the queue.
        """
        try:
            while self._wanted:
                if not self._semaphores.try_acquire(self._wanted[-1]):
                    return await self._take_turn()
                self._held.append(self._wanted.pop())
        except BaseException:
            self._release()
            raise
        return True

    async def __aexit__(self, *_: object) -> None:
        """Release them to the next in line."""
        self._release()

    async def _take_turn(self) -> bool:
        if self._slot is not None and not self._slot.park():
            self._release()
            return False
        try:
            async with asyncio.timeout(WAIT_MAX_S):
                await self._wait_for_all()
        except TimeoutError:
            self._release()
            return False
        if self._slot is not None:
            await self._slot.resume()
        return True

    async def _wait_for_all(self) -> None:
        while self._wanted:
            await self._semaphores.acquire(self._wanted[-1])
            self._held.append(self._wanted.pop())

    def _release(self) -> None:
        for key in self._held:
            self._semaphores.release(key)
        self._held.clear()
