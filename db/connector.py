"""How connections are opened: to PostgreSQL 14 to 18, itself or a pooler in front of it.

What the other side does not understand is learned from its refusal, once in an engine's life: for
the usual server, the newest, a connection costs no round trip more.

**A pooler** in transaction mode (PgBouncer and its like) gives each transaction another session of
the server. So nothing is kept in a session: the settings go out with each BEGIN, in the same
message, and statements are prepared without a name, again with each use.
"""

import re
from typing import Final

import asyncpg

from db.connection import DriverConnection
from db.url import read_url

MAJOR_MIN: Final = 14
TRANSACTION_TIMEOUT_SINCE: Final = 17
"""The major versions that are served, and that have `transaction_timeout`."""

STATEMENTS_REMEMBERED_MAX: Final = 100
"""asyncpg's own default; SQLAlchemy remembers as many beside it."""

POOLER_TAKES: Final = frozenset({"application_name", "timezone"})
"""What any pooler follows for each of its clients."""

_UNDEFINED: Final = "42704"
_NOT_AT_START: Final = re.compile("unsupported startup parameter|startup option")


class UnsuitableDatabaseError(Exception):
    """This server or database cannot hold the schema; nothing was made in it."""


class Connector:
    """Opens the connections of one engine.

    Args:
        url: as libpq's.
        settings: what each session or, behind a pooler, each transaction begins with.
        connect_timeout_s: unless the URL says another.
        command_timeout_s: how long one statement may go unanswered.
    """

    def __init__(
        self,
        url: str,
        settings: dict[str, str],
        *,
        connect_timeout_s: float,
        command_timeout_s: float,
    ) -> None:
        address = read_url(url)
        self._dsn = address.dsn
        self._settings = dict(settings)
        if address.application_name:
            self._settings["application_name"] = address.application_name
        self._connect_timeout_s = address.connect_timeout_s or connect_timeout_s
        self._command_timeout_s = command_timeout_s
        self._is_pooled: bool | None = None

    async def open(self) -> DriverConnection:
        """Open a connection.

        Raises:
            UnsuitableDatabaseError: the server is too old.
        """
        is_pooled = bool(self._is_pooled)
        at_start = dict(self._settings)
        if is_pooled:
            at_start = {name: at_start[name] for name in POOLER_TAKES}
        try:
            connection = await self._connect(at_start, is_pooled=is_pooled)
        except asyncpg.PostgresError as error:
            if not self._learn(error, at_start):
                raise
            return await self.open()
        if self._is_pooled is None:
            self._is_pooled = not await _is_direct(connection)
        if self._is_pooled and not is_pooled:
            await connection.close()
            return await self.open()
        return connection

    async def _connect(self, at_start: dict[str, str], *, is_pooled: bool) -> DriverConnection:
        connection: DriverConnection = await asyncpg.connect(
            self._dsn,
            timeout=self._connect_timeout_s,
            command_timeout=self._command_timeout_s,
            connection_class=DriverConnection,
            statement_cache_size=0 if is_pooled else STATEMENTS_REMEMBERED_MAX,
            server_settings=at_start,
        )
        major = connection.get_server_version().major
        if major < MAJOR_MIN:
            connection.terminate()
            raise UnsuitableDatabaseError(
                f"the server is PostgreSQL {major}, and {MAJOR_MIN} or newer is needed"
            )
        connection.has_transaction_timeout = major >= TRANSACTION_TIMEOUT_SINCE
        if is_pooled:
            connection.stand_behind_pooler(self._preamble(connection))
        return connection

    def _learn(self, error: asyncpg.PostgresError, sent: dict[str, str]) -> bool:
        """Note what the other side refused; return whether another try may do better."""
        if error.sqlstate == _UNDEFINED and "transaction_timeout" in str(error):
            self._settings.pop("transaction_timeout", None)
            return "transaction_timeout" in sent
        if _NOT_AT_START.search(str(error)):
            self._is_pooled = True
            return not sent.keys() <= POOLER_TAKES
        return False

    def _preamble(self, connection: DriverConnection) -> str:
        """Return the settings as statements that follow BEGIN in its message.

        All of them, since a session that was reset has forgotten what the pooler gave it; but for
        keepalives, which are between the pooler and the server.
        """
        left_out = set() if connection.has_transaction_timeout else {"transaction_timeout"}
        return "".join(
            f"; SET LOCAL {name} = {value if name == 'search_path' else _quoted(value)}"
            for name, value in self._settings.items()
            if name not in left_out and not name.startswith("tcp_")
        )


async def _is_direct(connection: DriverConnection) -> bool:
    """Return whether the process that answers is the one that the connection was promised.

    As a simple query, since a pooler may answer each message from another process.
    """
    pid = connection.get_server_pid()
    return bool(await connection.execute(f"SELECT WHERE pg_backend_pid() = {pid}") == "SELECT 1")


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
