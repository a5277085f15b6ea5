"""The doorbell: how a client wakes an idle worker, and why no ring is lost.

The bell is a sorted set with at most one member. Ringing is `ZADD <queue>:bell 0 ring` after the
job is in the queue; an idle worker waits in BZPOPMIN, so one ring wakes one worker. A ring that
nobody waits for stays until a worker does. A claim that leaves due jobs behind rings again; a claim
that leaves nothing due removes the bell, in the same atomic step (`claim.lua`).
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from redis.exceptions import NoPermissionError, ResponseError

from .connection import LOSS_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from arq.connections import ArqRedis

    from .connection import Connection

logger = logging.getLogger("arq.worker")

BELL_SUFFIX: Final = ":bell"
LISTEN_S: Final = 5.0
"""How long one wait lasts on the server, and so how long a dead connection goes unnoticed."""
PAUSE_S: Final = 1.0
"""How long to wait after a failure; meanwhile the poll finds the jobs."""


class Doorbell:
    """Listens for rings while the worker has a free slot."""

    def __init__(self, key: str, connection: "Connection", awaits_ring: asyncio.Event) -> None:
        self.key = key
        self._connection = connection
        self._awaits_ring = awaits_ring

    async def listen(self, redis: "ArqRedis", on_ring: "Callable[[], None]") -> None:
        """Call `on_ring` for every ring, until cancelled."""
        if redis.single_connection_client:
            # Waiting at the bell would occupy the only connection that every other command needs.
            logger.info("a single-connection client cannot hear the doorbell: polling only")
            return
        while True:
            await self._awaits_ring.wait()
            await self._connection.back.wait()
            try:
                await self._answer(redis, on_ring)
            except LOSS_ERRORS as error:
                if _is_forbidden(error):
                    logger.warning("the doorbell does not work here, polling only: %s", error)
                    return
                # Not reported as a lost Redis: a full connection pool raises the same errors, and a
                # demoted server lets go of those who wait at the bell.
                logger.debug("the doorbell is silent for a moment: %s", error)
                await asyncio.sleep(PAUSE_S)

    async def _answer(self, redis: "ArqRedis", on_ring: "Callable[[], None]") -> None:
        async with asyncio.timeout(LISTEN_S + self._connection.patience_s):
            rung = await redis.bzpopmin(self.key, LISTEN_S)
        if rung and self._awaits_ring.is_set():
            on_ring()
        elif rung:
            # Every slot was taken meanwhile: pass the ring on to an idle worker.
            await self._connection.call(redis.zadd(self.key, {"ring": 0}))


def _is_forbidden(error: BaseException) -> bool:
    """Return whether this server, or this user, will never be able to wait at the bell."""
    unknown = isinstance(error, ResponseError) and str(error).startswith("unknown command")
    return unknown or isinstance(error, NoPermissionError)
