"""Keyed semaphores: jobs that contend for the same rows wait before they take a connection.

A row lock would make them wait as well, but each with a connection and an open transaction. Two at
a time per key are best: one holds the lock, the statement of the next waits for it in PostgreSQL.
They save work and guarantee nothing: correctness is the database's alone. Whoever waits gives its
slot away, so that one key that is held for long holds up nobody else; and while somebody outside
locks the rows of a key, one job at a time tries it (`locked_keys`).
"""

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from db.errors import Trouble, diagnose
from worker.execution.locked_keys import LockedKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from worker.loop.slots import Slot

HOLDERS_PER_KEY_MAX: Final = 2
WAIT_MAX_S: Final = 10.0
"""A job that has waited this long goes back to the queue: others may be behind it there."""
CROWDED_S: Final = 1.0
"""So long is a job away that cannot wait here for what others hold."""


class KeyedSemaphores:
    """The semaphores of one process, by key; a key that no job holds takes no memory.

    Args:
        holders_max: how many jobs may hold one key at a time.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        holders_max: int = HOLDERS_PER_KEY_MAX,
        clock: "Callable[[], float]" = time.monotonic,
    ) -> None:
        self._holders_max = holders_max
        self._clock = clock
        self._locked = LockedKeys()
        self._served_at: dict[str, float] = {}
        self._holders: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """Return how many keys are held or waited for."""
        return len(self._holders | self._waiting)

    def hold(
        self, keys: "Iterable[str]", slot: "Slot | None" = None, *, insists: bool = False
    ) -> "Hold":
        """Return a context manager that holds the semaphore of each key for its block.

        Args:
            keys: what the job contends for.
            slot: the job's, to be given away while it waits; None where it has none to give.
            insists: whether it runs although a key is closed: it tries again what it has tried.
        """
        return Hold(self, keys, slot, insists=insists)

    def away_s(self, keys: "frozenset[str]") -> float:
        """Return for how many seconds a job stays away because its keys' rows are locked."""
        return self._locked.away_s(keys, self._clock()) if self._locked else 0.0

    def begin(self, keys: "frozenset[str]") -> float:
        """Note that a job has all its keys; returns the time."""
        if self._locked:
            self._locked.enter(keys)
        return self._clock()

    def end(self, keys: "frozenset[str]", began_s: float, error: BaseException | None) -> None:
        """Note how a job with these keys ended: after a lock timeout others are kept away."""
        if error is None:
            self._served_at.update({key: self._clock() for key in keys if self._holders[key] > 1})
            if self._locked:
                self._locked.succeed(keys)
        elif diagnose(error).trouble is Trouble.LOCK_TIMEOUT and keys:
            served = [key for key in keys if self._served_at.get(key, began_s) > began_s]
            self._locked.time_out(keys, served, self._clock())
        elif self._locked:
            self._locked.give_up(keys)

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
            self._served_at.pop(key, None)


class Hold:
    """Several semaphores, held for as long as a block runs."""

    __slots__ = ("_began_s", "_held", "_insists", "_keys", "_semaphores", "_slot", "_wanted")

    def __init__(
        self,
        semaphores: KeyedSemaphores,
        keys: "Iterable[str]",
        slot: "Slot | None",
        *,
        insists: bool,
    ) -> None:
        self._semaphores = semaphores
        self._slot = slot
        self._insists = insists
        self._keys = frozenset(keys)
        # In order of keys, so that two jobs with keys in common cannot wait for each other.
        self._wanted = sorted(self._keys, reverse=True)
        self._held: list[str] = []
        self._began_s: float | None = None

    async def __aenter__(self) -> float:
        """Take all keys, waiting without a slot at most `WAIT_MAX_S`.

        Returns:
            0 when it is this job's turn. Else the seconds after which it may try again: its keys'
            rows are locked, it has waited too long, or it may not wait at all because too many do.
            Then it holds no key, and goes back to the queue.
        """
        if away_s := self._away_s():
            return away_s
        try:
            if not (self._acquire_at_once() or await self._take_turn()):
                return CROWDED_S
            if away_s := self._away_s():  # closed while it waited
                self._release()
                return away_s
        except BaseException:
            self._release()
            raise
        self._began_s = self._semaphores.begin(self._keys)
        return 0.0

    async def __aexit__(self, _type: object, error: BaseException | None, _where: object) -> None:
        """Release them to the next in line."""
        if self._began_s is not None:
            self._semaphores.end(self._keys, self._began_s, error)
        self._release()

    def _away_s(self) -> float:
        return 0.0 if self._insists else self._semaphores.away_s(self._keys)

    def _acquire_at_once(self) -> bool:
        while self._wanted:
            if not self._semaphores.try_acquire(self._wanted[-1]):
                return False
            self._held.append(self._wanted.pop())
        return True

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
