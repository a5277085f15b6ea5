"""Waking those who wait for a result, by Redis' own messages to caches.

`CLIENT TRACKING` makes the server tell us when a key that we read has changed, whoever writes it:
so a waiter is woken by any arq worker, and no server setting is needed. Where it does not work (a
proxy, an access rule) waiting falls back to looking again.
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
    """Two connections of their own while somebody waits: one reads keys, one hears of changes."""

    def __init__(self, redis: "Redis") -> None:
        self._pool: Any = redis.connection_pool  # redis-py leaves making a connection untyped
        self._waiting: dict[bytes, set[asyncio.Event]] = {}
        self._reading = asyncio.Lock()
        self._reader: Any = None
        self._listener: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, key: str) -> "AsyncIterator[asyncio.Event | None]":
        """Give an event that is set whenever the key changes; None where nothing would set it."""
        changed = asyncio.Event()
        name = key.encode()
        self._waiting.setdefault(name, set()).add(changed)
        try:
            yield changed if await self.remind(key) else None
        finally:
            self._waiting[name].discard(changed)
            if not self._waiting[name]:
                del self._waiting[name]
            if not self._waiting:
                await self.close()

    async def remind(self, key: str) -> bool:
        """Ask the server to tell us of the key's next change; it forgets after telling once."""
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
        """Let both connections go; whoever still waits looks for himself."""
        listener, self._listener = self._listener, None
        reader, self._reader = self._reader, None
        if listener is not None:
            listener.cancel()
            await asyncio.wait({listener})
        if reader is not None:
            await reader.disconnect()

    async def _connect(self) -> None:
        hearing, reader = self._pool.make_connection(), self._pool.make_connection()
        try:
            await hearing.connect()
            hearing_id = await _command(hearing, "CLIENT", "ID")
            await _command(hearing, "SUBSCRIBE", CHANNEL)
            await reader.connect()
            await _command(reader, "CLIENT", "TRACKING", "ON", "REDIRECT", str(hearing_id))
        except BaseException:
            await hearing.disconnect()
            await reader.disconnect()
            raise
        self._reader = reader
        self._listener = asyncio.create_task(self._listen(hearing))

    async def _listen(self, hearing: Any) -> None:  # noqa: ANN401 - redis-py's connection
        try:
            while True:
                message = await hearing.read_response()
                self._tell(message[-1])
        except asyncio.CancelledError:
            raise
        except Exception as error:  # noqa: BLE001 - waiters look again, and connect again
            logger.debug("no wake-ups from redis any more: %s", type(error).__name__)
            reader, self._reader, self._listener = self._reader, None, None
            if reader is not None:
                await reader.disconnect()
        finally:
            self._tell(None)
            with contextlib.suppress(Exception):
                await hearing.disconnect()

    def _tell(self, keys: "list[bytes | str] | None") -> None:
        """Wake who waits for these keys; None means everything: a flush, or the end."""
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
