"""What the tests of connections share: a server that falls silent, and what a session holds."""

import asyncio
import re
from contextlib import asynccontextmanager, suppress

from sqlalchemy import make_url, text

from db.transaction import driver_of

# Whatever one job could leave to the next, as rows.
LEFT = text("""
    SELECT 'setting', name || ' = ' || setting FROM pg_settings
    WHERE source = 'session' AND name NOT LIKE 'transaction_%' AND name <> 'client_encoding'
    UNION ALL SELECT 'role', current_user WHERE current_user <> 'postgres'
    UNION ALL SELECT 'user', session_user WHERE session_user <> 'postgres'
    UNION ALL SELECT 'lock', objid::text FROM pg_locks
              WHERE locktype = 'advisory' AND pid = pg_backend_pid()
    UNION ALL SELECT 'channel', channel FROM pg_listening_channels() AS channel
    UNION ALL SELECT 'cursor', name FROM pg_cursors WHERE is_holdable
    UNION ALL SELECT 'prepared', name FROM pg_prepared_statements WHERE from_sql
    UNION ALL SELECT 'table', relname FROM pg_class
              WHERE relpersistence = 't' AND pg_table_is_visible(oid)
""")
SET_LOCAL = re.compile(r"SET LOCAL (\w+) = '([^']*)'")
PIECE_BYTES = 65_536
PID = text("SELECT pg_backend_pid()")


async def left_on(session):
    """Return what is on a session beyond what a new one has."""
    found = [tuple(row) for row in await session.execute(LEFT)]
    # Behind a pooler, each transaction begins with settings of its own.
    preamble = (await driver_of(session))._preamble
    own = {f"{name} = {value}".lower() for name, value in SET_LOCAL.findall(preamble)}
    return [row for row in found if row[1].lower() not in own]


class SilentProxy:
    """Forwards to PostgreSQL until it falls silent: connections stay, and nothing comes through.

    It can also cut a connection, in the middle of an answer.
    """

    def __init__(self, url):
        self._target = make_url(url)
        self._speaks = asyncio.Event()
        self._speaks.set()
        self._tasks = set()
        self._bytes_left: int | None = None

    @asynccontextmanager
    async def open(self):
        """Listen for the length of a block; yields the URL to connect to."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield self._target.set(host="127.0.0.1", port=port).render_as_string(
                hide_password=False
            )
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def fall_silent(self):
        """Forward nothing from now on."""
        self._speaks.clear()

    def speak(self):
        """Forward again."""
        self._speaks.set()

    def cut_after(self, size_bytes):
        """Cut the connection on which the server's answers reach this size, once."""
        self._bytes_left = size_bytes

    def _accept(self, reader, writer):
        self._tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader, writer):
        answers, questions = await asyncio.open_connection(self._target.host, self._target.port)
        try:
            with suppress(OSError):
                await asyncio.gather(self._forward(reader, questions), self._bring(answers, writer))
        finally:
            writer.transport.abort()
            questions.transport.abort()

    async def _bring(self, answers, writer):
        while data := await answers.read(PIECE_BYTES):
            await self._speaks.wait()
            if self._bytes_left is not None:
                self._bytes_left -= len(data)
                if self._bytes_left < 0:
                    self._bytes_left = None
                    raise ConnectionAbortedError
            writer.write(data)
        writer.close()

    async def _forward(self, reader, writer):
        while data := await reader.read(PIECE_BYTES):
            await self._speaks.wait()
            writer.write(data)
        writer.close()
