"""Wakes callers that wait for a result, by Redis' own messages to caches.

With `CLIENT TRACKING` the server reports when a key that was read has changed, whoever writes it:
so a waiter is woken by any arq worker, and no server setting is needed. Where it does not work (a
proxy, an access rule) a waiter looks again from time to time.
"""

import asyncio
import contextlib
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

logger = logging.getLogger("jobs.client")

CHANNEL: Final = "__redis__:invalidate"
CONNECT_TIMEOUT_S: Final = 5.0


class Wakeups:
    """Two connections while a caller waits: one reads keys, the other receives what has changed."""

    def __init__(self, redis: "Redis") -> None:
        self._pool: Any = redis.connection_pool  # redis-py leaves making a connection untyped
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._reading = asyncio.Lock()
        self._reader: Any = None
        self._listener: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, key: str) -> "AsyncIterator[asyncio.Event | None]":
        """Give an event that is set when the key changes; None where nothing would set it.

        Call `track` after each change, to hear of the next.
        """
        changed = asyncio.Event()
        name = key.encode()
        self._waiting.setdefault(name, set()).add(changed)
        try:
            yield changed if await self.track(key) else None
        finally:
            self._waiting[name].discard(changed)
            if not self._waiting[name]:
                del self._waiting[name]
            if not self._waiting:
                await self.close()

    async def track(self, key: str) -> bool:
        """Have the next change of the key reported: the server reports each key once.

        Returns:
            Whether it will be; if not, look again instead.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S), self._reading:
                if self._reader is None:
                    await self._connect()
                await _command(self._reader, "GET", key)
        except asyncio.CancelledError:
            await self.close()  # an answer may be left unread, and would be taken for the next one
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, looking again still works
            logger.debug("no wake-ups from redis: %s", type(error).__name__)
            await self.close()
            return False
        return True

    async def close(self) -> None:
        """Close both connections; callers that still wait look again by themselves."""
        listener, self._listener = self._listener, None
        reader, self._reader = self._reader, None
        if listener is not None:
            listener.cancel()
            await asyncio.wait({listener})
        if reader is not None:
            await reader.disconnect()

    async def _connect(self) -> None:
        listening, reader = self._pool.make_connection(), self._pool.make_connection()
        try:
            await listening.connect()
            listening_id = await _command(listening, "CLIENT", "ID")
            await _command(listening, "SUBSCRIBE", CHANNEL)
            await reader.connect()
            await _command(reader, "CLIENT", "TRACKING", "ON", "REDIRECT", str(listening_id))
        except BaseException:
            await listening.disconnect()
            await reader.disconnect()
            raise
        self._reader = reader
        self._listener = asyncio.create_task(self._listen(listening))

    async def _listen(self, listening: Any) -> None:  # noqa: ANN401 - redis-py's connection
        try:
            while True:
                message = await listening.read_response()
                self._wake(message[-1])
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - waiters look again, and connect again
            logger.debug("no wake-ups from redis any more: %s", type(error).__name__)
            reader, self._reader, self._listener = self._reader, None, None
            if reader is not None:
                await reader.disconnect()
        finally:
            self._wake(None)
            with contextlib.suppress(Exception):
                await listening.disconnect()

    def _wake(self, keys: "list[bytes | str] | None") -> None:
        """Wake callers that wait for these keys; None means all of them: a flush, or the end."""
        names = (
            list(self._waiting)
            if keys is None
            else [key if isinstance(key, bytes) else key.encode() for key in keys]
        )
        for name in names:
            for changed in self._waiting.get(name, ()):
                changed.set()


async def _command(connection: Any, *words: str) -> Any:  # noqa: ANN401 - redis-py's own types
    await connection.send_command(*words)
    return await connection.read_response()
