"""Proxies before the servers: they can be slow, and lose the reply to a COMMIT.

A lost reply takes the connection with it. The commit has happened, and whoever asked for it will
never know: the one failure that no retry rule can tell from its opposite.
"""

import asyncio
from asyncio import FIRST_COMPLETED, StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")
NO_SSL: Final = b"N"
"""Nothing is encrypted on this machine, or no COMMIT could be seen."""
CHUNK_BYTES_MAX: Final = 256 * 1024
_QUERY: Final = b"Q"
_HEAD: Final = 5


class Proxy:
    """Forwards connections to one server, and can be slow."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.latency_s = 0.0
        """How long each message is held back, in both directions."""
        self.port = 0
        """Where it listens, once it does."""
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen on a free port of this machine, and return it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    async def stop(self) -> None:
        """Stop listening; open connections end with their clients."""
        if self._server is not None:
            self._server.close()

    def takes(self, _data: bytes) -> bool:
        """Return whether the reply to a client's message is to be lost."""
        return False

    def note_lost(self) -> None:
        """Count a reply that was lost."""

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Forward one client's connection until either end closes it."""
        try:
            server_reader, server_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            writer.transport.abort()
            return
        connection = _Connection(self, writer, server_writer)
        halves = {
            asyncio.create_task(connection.forward_requests(reader)),
            asyncio.create_task(connection.forward_replies(server_reader)),
        }
        try:
            await asyncio.wait(halves, return_when=FIRST_COMPLETED)
        finally:
            for half in halves:
                half.cancel()
            writer.close()
            server_writer.close()


class CommitProxy(Proxy):
    """A proxy before PostgreSQL; drops connections whose COMMIT is to lose its reply."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.armed = 0
        """How many of the next COMMITs lose their reply."""
        self.lost = 0
        """How many have."""
        self.commits = 0

    def lose_replies(self, count: int) -> None:
        """Lose the replies to the next `count` COMMITs."""
        self.armed += count

    def takes(self, data: bytes) -> bool:
        """Count a COMMIT, and return whether its reply is to be lost."""
        if not is_commit(data):
            return False
        self.commits += 1
        if not self.armed:
            return False
        self.armed -= 1
        return True

    def note_lost(self) -> None:
        """Count a reply that was lost."""
        self.lost += 1


@dataclass
class _Connection:
    """A client's connection and its twin to the server."""

    proxy: Proxy
    client: StreamWriter
    server: StreamWriter
    loses_reply: bool = False

    async def forward_requests(self, reader: StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES_MAX):
                if data == SSL_REQUEST:
                    self.client.write(NO_SSL)
                    continue
                self.loses_reply = self.loses_reply or self.proxy.takes(data)
                await self._hold_back()
                self.server.write(data)
                await self.server.drain()

    async def forward_replies(self, reader: StreamReader) -> None:
        with suppress(OSError):
            while data := await reader.read(CHUNK_BYTES_MAX):
                if self.loses_reply:
                    # PostgreSQL has answered, so what it answered to has happened.
                    self.proxy.note_lost()
                    self.client.transport.abort()
                    return
                await self._hold_back()
                self.client.write(data)
                await self.client.drain()

    async def _hold_back(self) -> None:
        if self.proxy.latency_s:
            await asyncio.sleep(self.proxy.latency_s)


def is_commit(data: bytes) -> bool:
    """Return whether a client's message is the simple query COMMIT.

    A client waits for the reply to every other message before it commits, so it stands alone.
    """
    return data[:1] == _QUERY and data[_HEAD:].lstrip()[:6].upper() == b"COMMIT"
