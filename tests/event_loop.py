"""The event loop of a test: it lets its connections close before it is closed itself."""

import asyncio
import time
from typing import Final

CLOSING_MAX_S: Final = 5.0
LOOK_EVERY_S: Final = 0.002
OWN_SOCKETS: Final = 1
"""By which the loop wakes itself."""


class PatientEventLoop(asyncio.SelectorEventLoop):
    """A loop that waits, when it is closed, for the connections that are closing.

    asyncio takes leave of a TLS peer in the background, and a transport ends in a later round of
    its loop. Cut short, it leaves an open socket to whichever test the garbage collector runs in.
    One that nobody closed is waited for in vain, and found there.
    """

    def close(self) -> None:
        """Close the loop; a second time, do nothing."""
        deadline = time.monotonic() + CLOSING_MAX_S
        while not self.is_closed() and self._is_watching() and time.monotonic() < deadline:
            self.run_until_complete(asyncio.sleep(LOOK_EVERY_S))
        super().close()

    def _is_watching(self) -> bool:
        return len(self._selector.get_map()) > OWN_SOCKETS  # type: ignore[attr-defined]
