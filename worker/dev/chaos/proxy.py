"""A proxy before PostgreSQL that can lose the reply to a COMMIT, and the connection with it.

The commit has happened, and whoever asked for it will never know: the one failure that no retry
rule can tell from its opposite.
"""

import asyncio
from typing import Final, cast

SSL_REQUEST: Final = bytes.fromhex("0000000804d2162f")
NO_SSL: Final = b"N"
"""Nothing is encrypted on this machine, or no COMMIT could be seen."""
_QUERY: Final = b"Q"
_HEAD: Final = 5


class CommitProxy:
    """Forwards connections to one server, and drops those whose COMMIT it is told to."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.armed = 0
        """How many of the next COMMITs lose their reply."""
        self.lost = 0
        """How many have."""
        self.commits = 0
        self.port = 0
        """Where it listens, once it does."""
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Listen on a free port of this machine, and return it."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Near(self), "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self.port

    def lose_replies(self, count: int) -> None:
        """Lose the replies to the next `count` COMMITs."""
        self.armed += count

    def takes(self, data: bytes) -> bool:
        """Count a COMMIT, and tell whether its reply is to be lost."""
        if not is_commit(data):
            return False
        self.commits += 1
        if not self.armed:
            return False
        self.armed -= 1
        return True

    async def stop(self) -> None:
        """Stop listening; open connections end with their clients."""
        if self._server is not None:
            self._server.close()


def is_commit(data: bytes) -> bool:
    """Tell whether a client's message is the simple query COMMIT.

    A client waits for the reply to every other message before it commits, so it stands alone.
    """
    return data[:1] == _QUERY and data[_HEAD:].lstrip()[:6].upper() == b"COMMIT"


class _Half(asyncio.Protocol):
    """One end of a connection; what it reads goes to the other."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.other: _Half | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def connection_lost(self, error: Exception | None) -> None:
        del error
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None:
            self.other.transport.resume_reading()

    def send(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def drop(self) -> None:
        """End both halves at once, without a farewell."""
        for half in (self, self.other):
            if half is not None and half.transport is not None:
                half.transport.abort()


class _Near(_Half):
    """The client's half."""

    def __init__(self, proxy: CommitProxy) -> None:
        super().__init__()
        self._proxy = proxy
        self._early: list[bytes] = []
        self._connecting: asyncio.Task[None] | None = None
        self.reply_is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def data_received(self, data: bytes) -> None:
        if data == SSL_REQUEST:
            self.send(NO_SSL)
        elif self.other is None:
            self._early.append(data)
        else:
            self.reply_is_lost = self.reply_is_lost or self._proxy.takes(data)
            self.other.send(data)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.create_connection(lambda: _Far(self, self._proxy), *self._proxy.upstream)
        except OSError:
            self.drop()
            return
        for data in self._early:
            cast("_Half", self.other).send(data)


class _Far(_Half):
    """The server's half."""

    def __init__(self, near: _Near, proxy: CommitProxy) -> None:
        super().__init__()
        self._near = near
        self._proxy = proxy

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = self._near
        self._near.other = self
        if self._near.transport is None or self._near.transport.is_closing():
            self.drop()

    def data_received(self, data: bytes) -> None:
        if self._near.reply_is_lost:
            # PostgreSQL has answered, so what it answered to has happened.
            self._proxy.lost += 1
            self._near.reply_is_lost = False
            self.drop()
            return
        self._near.send(data)
