"""The event loop's pulse: it beats while the loop turns, and a thread can tell when it stops."""

import asyncio
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

INTERVAL_S: Final = 0.1
REMEMBERED_S: Final = 15.0
"""The worst delay of about this long is what a scrape sees."""


class Pulse:
    """Beats on the event loop; read from any thread."""

    def __init__(self, clock: "Callable[[], float]" = time.monotonic) -> None:
        self._clock = clock
        self._last = clock()
        self._worst = (0.0, clock())
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to beat on the running loop."""
        self._last = self._clock()
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._beat)

    def stop(self) -> None:
        """Beat no more; from here on only silence is measured."""
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        now = self._clock()
        delay = max(0.0, now - self._last - INTERVAL_S)
        worst, seen_at = self._worst
        if delay >= worst or now - seen_at > REMEMBERED_S:
            self._worst = (delay, now)
        self._last = now
        self._timer = asyncio.get_running_loop().call_later(INTERVAL_S, self._beat)

    def silence_s(self) -> float:
        """Return for how long the loop has not turned."""
        return max(0.0, self._clock() - self._last)

    def lag_s(self) -> float:
        """Return the worst delay of late, the one that lasts included."""
        return max(self._worst[0], self.silence_s() - INTERVAL_S, 0.0)
