"""The doorbell: how a client wakes an idle worker, and why no ring is lost.

The bell is a sorted set with at most one member. Ringing is `ZADD <queue>:bell 0 ring` after the
job is in the queue; an idle worker waits in BZPOPMIN, so one ring wakes one worker. A ring that
nobody waits for stays until somebody does. Who finds more work than it can take rings again; who
finds nothing due removes the bell, in the same atomic step (`claim.lua`).
"""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from redis.exceptions import ResponseError

from .connection import COMMAND_TIMEOUT_S, LOSS_ERRORS

if TYPE_CHECKING:
    from collections.abc import Callable

    from arq.connections import ArqRedis

    from .connection import RedisLink

logger = logging.getLogger("arq.worker")

BELL_SUFFIX: Final = ":bell"
LISTEN_S: Final = 5.0
"""How long one wait lasts on the server: the bound on a connection that died without a word."""
PAUSE_S: Final = 1.0
"""After a failure; the poll finds the work meanwhile."""


class Doorbell:
    """Listens for rings while the worker has a free slot."""

    def __init__(self, key: str, link: "RedisLink", hungry: asyncio.Event) -> None:
        self.key = key
        self._link = link
        self._hungry = hungry

    async def listen(self, redis: "ArqRedis", on_ring: "Callable[[], None]") -> None:
        """Call `on_ring` for every ring, until cancelled."""
        if redis.single_connection_client:
            # It would wait here while everything else waits for its only connection.
            logger.info("a single-connection client cannot hear the doorbell: polling only")
            return
        while True:
            await self._hungry.wait()
            await self._link.back.wait()
            try:
                await self._answer(redis, on_ring)
            except ResponseError as error:
                logger.warning("the doorbell does not work here, polling only: %s", error)
                return
            except LOSS_ERRORS as error:
                # Whether Redis is away is not judged here: a full connection pool ends here too.
                logger.debug("the doorbell is silent for a moment: %s", error)
                await asyncio.sleep(PAUSE_S)

    async def _answer(self, redis: "ArqRedis", on_ring: "Callable[[], None]") -> None:
        async with asyncio.timeout(LISTEN_S + COMMAND_TIMEOUT_S):
            rung = await redis.bzpopmin(self.key, LISTEN_S)
        if rung and self._hungry.is_set():
            on_ring()
        elif rung:
            # Every slot was taken while we listened: the ring is for somebody idle.
            await self._link.call(redis.zadd(self.key, {"ring": 0}))
