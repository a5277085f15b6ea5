"""A watchdog for a blocked event loop: a thread that renews leases while the loop cannot.

A job that computes or blocks for longer than a lease stops the event loop, and with it the timer
that renews leases, so the job's own lease would lapse while it runs. The thread notices that and
renews, for as long as arq's in-progress key would have lasted. In a dead or frozen process the
thread is dead or frozen too, so those leases lapse as they should.
"""

import asyncio
import logging
import threading
import time
from typing import TYPE_CHECKING, Final

from .connection import COMMAND_TIMEOUT_S, LOSS_ERRORS
from .scripts import RENEW

if TYPE_CHECKING:
    from collections.abc import Callable

    from arq.connections import ArqRedis

    from .claims import Claims

logger = logging.getLogger("arq.worker")

LATE_AFTER_INTERVALS: Final = 1.5
"""A timer this late, in renewal intervals, means that the loop is blocked."""


class LeaseWatchdog:
    """Renews the leases from a thread while the event loop gives no sign of life."""

    def __init__(
        self,
        claims: "Claims",
        patience_s: float,
        connect: "Callable[[], ArqRedis | None]",
    ) -> None:
        self._claims = claims
        self._patience_s = patience_s
        self._connect = connect
        self._alive_at = 0.0
        self._stopped: threading.Event | None = None

    def loop_is_alive(self) -> None:
        """Note a sign of life; the first one starts the thread."""
        self._alive_at = time.monotonic()
        if self._stopped is None:
            self._stopped = threading.Event()
            threading.Thread(
                target=self._watch, args=(self._stopped,), name="lease watchdog", daemon=True
            ).start()

    def rest(self) -> None:
        """Expect no sign of life: no job is held."""
        self._alive_at = float("inf")

    def stop(self) -> None:
        """End the thread."""
        if self._stopped is not None:
            self._stopped.set()
            self._stopped = None

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(self._claims.renewal_interval_s):
            silent_s = time.monotonic() - self._alive_at
            if LATE_AFTER_INTERVALS * self._claims.renewal_interval_s < silent_s < self._patience_s:
                self._renew(silent_s)

    def _renew(self, silent_s: float) -> None:
        try:
            asyncio.run(self._renew_in_a_loop_of_its_own())
        except LOSS_ERRORS as error:
            logger.warning("the event loop is blocked, its leases are not renewed: %s", error)
        except Exception:
            logger.exception("the event loop is blocked, its leases are not renewed")
        else:
            logger.warning(
                "the event loop is blocked for %.1fs: a job computes or blocks without a thread",
                silent_s,
            )

    async def _renew_in_a_loop_of_its_own(self) -> None:
        redis = self._connect()
        if redis is None:
            return
        try:
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                for batch in self._claims.owned():
                    keys, args = self._claims.renewal(batch, take_lapsed=False)
                    await RENEW(redis, keys, args)
        finally:
            await redis.aclose(close_connection_pool=True)
