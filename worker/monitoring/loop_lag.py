"""How late the event loop runs: measured on it ten times a second, read from any thread."""

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 0.1
REMEMBERED_S: Final = 15.0
"""How long the worst delay is shown, so that a scrape does not miss it."""


class LoopLag:
    """Measures the delay of the running event loop; read from any thread."""

    def __init__(self, clock: "Callable[[], float]" = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._worst = (0.0, clock())
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure the running loop."""
        self._last = self._clock()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.tick)

    def stop(self) -> None:
        """Measure no more: from here on the loop counts as blocked."""
        if self._timer is not None:
            self._timer.cancel()

    def tick(self) -> None:
        """Note the time and how late it is, and have the loop call this again."""
        now = self._clock()
        delay = max(0.0, now - self._last - INTERVAL_S)
        worst, seen_at = self._worst
        if delay >= worst or now - seen_at > REMEMBERED_S:
            self._worst = (delay, now)
        self._last = now
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self.tick)

    def blocked_s(self) -> float:
        """Return for how many seconds the loop has not run this timer."""
        return max(0.0, self._clock() - self._last)

    def worst_s(self) -> float:
        """Return the worst recent delay in seconds, the one that lasts included."""
        return max(self._worst[0], self.blocked_s() - INTERVAL_S, 0.0)
