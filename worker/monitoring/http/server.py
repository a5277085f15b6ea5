"""A small HTTP server in a thread of its own: bounded in bytes, in time, and in connections.

h11 parses the request, of which only the first line matters. One request, one answer, and the
connection is closed. Nothing that a client sends, and no page that fails, ends the thread.
"""

import asyncio
import threading
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import h11

from worker.monitoring.http.pages import Page, json_page

if TYPE_CHECKING:
    from pathlib import Path

    from worker.monitoring.events import Events

REQUEST_BYTES_MAX: Final = 8_192
REQUEST_TIME_MAX_S: Final = 5.0
LINGER_MAX_S: Final = 0.2
CLOSE_DELAY_S: Final = 0.01
CONNECTIONS_MAX: Final = 64
START_WAIT_S: Final = 5.0
STOP_WAIT_S: Final = 2.0

BAD: Final = HTTPStatus.BAD_REQUEST


class Site(Protocol):
    """Has the pages that a server serves."""

    async def find(self, path: str) -> Page | None:
        """Return the page at a path, or None."""


class Server:
    """Serves a site until stopped, on a TCP port or a Unix socket."""

    def __init__(self, site: Site, address: "tuple[str, int] | Path", events: "Events") -> None:
        """Prepare to serve.

        Args:
            site: whose pages.
            address: a host and port (0 for any free one), or a socket's path.
            events: where a page that failed is reported, from the server's own thread.
        """
        self._site = site
        self._address = address
        self._events = events
        self._connections = 0
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)
        self.port = 0
        """The TCP port it serves on, once started; stays 0 for a Unix socket."""

    def start(self) -> None:
        """Begin to serve.

        Raises:
            OSError: the address is taken, or not this machine's.
        """
        self._thread.start()
        self._started.wait(START_WAIT_S)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Serve no more. Safe to call again."""
        if self._loop is not None and self._stopping is not None:
            with suppress(RuntimeError):  # the loop has ended by itself
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread.is_alive():
            self._thread.join(STOP_WAIT_S)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        try:
            server = await self._listen()
        except OSError as error:
            self._failure = error
            return
        finally:
            self._started.set()
        async with server:
            await self._stopping.wait()
            # asyncio leaks a connection whose server closes between its accept and its beginning,
            # and one that is cancelled before it has begun. So: accept no more, then let them run.
            for listening in server.sockets:
                self._loop.remove_reader(listening.fileno())
            await asyncio.sleep(CLOSE_DELAY_S)

    async def _listen(self) -> asyncio.Server:
        if not isinstance(self._address, tuple):
            return await asyncio.start_unix_server(
                self._answer, self._address, limit=REQUEST_BYTES_MAX
            )
        host, port = self._address
        server = await asyncio.start_server(self._answer, host, port, limit=REQUEST_BYTES_MAX)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        try:
            if self._connections <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_TIME_MAX_S):
                    await self._exchange(reader, writer)
        except (TimeoutError, ConnectionError):
            pass  # a client that is slow, or has gone, gets no answer
        except Exception as error:  # noqa: BLE001 - no request may end the probes
            self._events.emit("health.request_failed", error=type(error).__name__)
        finally:
            self._connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with_body = True
        try:
            request = await _read(reader)
        except h11.RemoteProtocolError as error:
            too_long = error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            page = _plain(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE if too_long else BAD)
        else:
            if request is None:
                return
            with_body = request.method != b"HEAD"
            page = await self._page_for(request)
        writer.write(_rendered(page, with_body=with_body))
        await writer.drain()
        await _linger(reader, writer)

    async def _page_for(self, request: h11.Request) -> Page:
        if request.method not in {b"GET", b"HEAD"}:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED)
        path = request.target.partition(b"?")[0].decode("ascii", "replace")
        return await self._site.find(path) or _plain(HTTPStatus.NOT_FOUND)


async def _read(reader: asyncio.StreamReader) -> h11.Request | None:
    """Return the request, or None where the client closes without having sent one.

    Raises:
        h11.RemoteProtocolError: it is not HTTP, or longer than it may be.
    """
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=REQUEST_BYTES_MAX)
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            return event
        if event is not h11.NEED_DATA:
            return None
        connection.receive_data(await reader.read(REQUEST_BYTES_MAX))


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what is still being sent: else the client may see a reset instead of the answer."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_MAX_S):
            while await reader.read(REQUEST_BYTES_MAX):
                pass


def _rendered(page: Page, *, with_body: bool) -> bytes:
    status = HTTPStatus(page.status)
    allow = "allow: GET, HEAD\r\n" if status is HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"content-type: {page.content_type}\r\n"
        f"content-length: {len(page.body)}\r\n"
        f"cache-control: no-store\r\n{allow}"
        "connection: close\r\n\r\n"
    )
    return head.encode("ascii") + (page.body if with_body else b"")


def _plain(status: HTTPStatus) -> Page:
    return json_page(status.value, {"error": status.phrase})
