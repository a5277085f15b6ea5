"""The driver's connection, with bounds of its own, and reset by whoever left something on it.

Whatever uses a connection, a job's transaction, an ordinary session or the raw driver, goes through
this class. So BEGIN, COMMIT, ROLLBACK and closing are bounded everywhere, and a job's statements
are judged before they are sent (`db.statements`).
"""

import re
import socket
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from db.statements import CLEAN, Leaves, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable

BEGIN_TIMEOUT_S: Final = 5.0
CONCLUDE_TIMEOUT_S: Final = 10.0
"""For the statements that end a job, whatever its handler was allowed: a lock that they wait for
ends by `lock_timeout` long before."""
COMMIT_TIMEOUT_S: Final = 20.0
"""Longer than the others: giving a COMMIT up leaves in doubt whether it happened."""
ROLLBACK_TIMEOUT_S: Final = 2.0
"""Then the connection is terminated, and the server rolls back by itself."""
CLOSE_TIMEOUT_S: Final = 2.0

# A peer that vanished without a word is noticed within KEEPALIVE_IDLE_S plus
# KEEPALIVE_COUNT * KEEPALIVE_INTERVAL_S, also under a statement that may take hours.
KEEPALIVE_IDLE_S: Final = 15
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_COUNT: Final = 3

# What makes a session as new, but for the driver's prepared statements (DISCARD ALL would drop
# them). A transaction of its own: it is sent behind COMMIT or ROLLBACK, in the same message.
# `from_sql` are those that a statement or a function has prepared by PREPARE.
RESET: Final = """
; RESET SESSION AUTHORIZATION; RESET ROLE; RESET ALL; CLOSE ALL; UNLISTEN *
; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES
; DO $$ DECLARE prepared text; BEGIN
    FOR prepared IN SELECT name FROM pg_catalog.pg_prepared_statements WHERE from_sql LOOP
      EXECUTE pg_catalog.format('DEALLOCATE %I', prepared);
    END LOOP;
  END $$
"""

END_SESSION: Final = "ROLLBACK; SELECT pg_catalog.pg_terminate_backend(pg_catalog.pg_backend_pid())"
"""For a session of the server that nobody should have next: a pooler would give it to somebody."""

OWN_NAMES: Final = (
    "SET LOCAL SESSION AUTHORIZATION DEFAULT; SET LOCAL ROLE NONE; SET LOCAL search_path TO DEFAULT"
)

# What asyncpg's own transactions send, which are SQLAlchemy's.
_CONTROL: Final = re.compile(
    r"(?P<begin>BEGIN(?: ISOLATION LEVEL [A-Z ]+?)?(?: READ ONLY)?(?: DEFERRABLE)?)"
    r";|(?P<commit>COMMIT);|(?P<rollback>ROLLBACK);"
)


class DriverConnection(asyncpg.Connection):  # type: ignore[misc] # asyncpg carries no types
    """asyncpg's connection, as the pool of `db.engine` holds it."""

    __slots__ = (
        "_concluding",
        "_has_written",
        "_is_doomed",
        "_leaves",
        "_limits",
        "_preamble",
        "_search_path",
        "_settings",
        "_usual",
        "has_transaction_timeout",
        "is_owned",
        "is_pooled",
        "is_silent",
        "is_watched",
    )

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - asyncpg's
        super().__init__(*args, **options)
        self._settings: Any = self.get_settings()
        self._search_path = self._search_path_now()
        # Both are switched to for every job, so they are made once.
        self._usual: Any = self._config  # type: ignore[has-type]
        self._concluding: Any = self._usual._replace(command_timeout=CONCLUDE_TIMEOUT_S)
        self._limits = self._preamble = ""
        self._leaves = Leaves.NOTHING
        self._is_doomed = False
        self.has_transaction_timeout = True
        """Whether the server's version has that setting."""
        self.is_pooled = False
        """Whether each transaction may have another session of the server."""
        self._has_written = False
        self.is_watched = False
        """Whether a job uses it: its statements are judged."""
        self.is_owned = False
        """Whether the transaction is a job's, so that nobody else may begin or end one."""
        self.is_silent = False
        """Whether it was given up because the server answered no ROLLBACK and no farewell; after a
        cancel, SQLAlchemy says farewell at once."""
        _keep_alive(self._transport)

    def stand_behind_pooler(self, preamble: str) -> None:
        """Keep nothing in the session: begin each transaction with what one would begin with.

        Args:
            preamble: `SET LOCAL` statements that follow BEGIN.
        """
        self.is_pooled = True
        self._limits = self._preamble = preamble

    # What a job may, and for how long.

    def serve(self, limits: str, patience_s: float | None) -> None:
        """Work for a job until `retire`: judge its statements, and be as patient as it may be slow.

        Args:
            limits: `SET LOCAL` statements for each of its transactions, sent with BEGIN.
            patience_s: how long one statement may go unanswered; None: however long.
        """
        self.is_watched = True
        self.limit(limits, patience_s)

    def limit(self, limits: str, patience_s: float | None) -> None:
        """Have limits as those of `serve` until `retire`, whoever uses the connection."""
        self._limits = self._preamble + limits
        self.wait_for_answers(patience_s)

    def wait_for_answers(self, patience_s: float | None) -> None:
        """Give a statement up when it is not answered for so long; None: never."""
        if patience_s != self._config.command_timeout:  # type: ignore[has-type]
            self._config = self._usual._replace(command_timeout=patience_s)  # type: ignore[misc]

    def retire(self) -> None:
        """Return to how the pool gives connections out."""
        self.is_watched = self.is_owned = self._has_written = False
        self._limits = self._preamble
        self._config = self._usual

    def judge(self, sql: str) -> None:
        """Note what a job's statement may leave on the session; to be called before it is sent.

        Raises:
            NotYoursError: it would begin or end the job's transaction.
        """
        self._leaves = max(self._leaves, judge(sql))

    def doom(self) -> None:
        """Have it replaced, once it is given back."""
        self._is_doomed = True

    @property
    def is_unfit(self) -> bool:
        """Whether the next user should have another connection instead of this one.

        A session that can only read is as good as closed: where the server was read-only for a
        while, or has become a primary meanwhile, only a new one is sure to write.
        """
        return bool(
            self._is_doomed
            or self._leaves
            or self._listeners
            or self._log_listeners
            or self._query_loggers
            or (not self._has_written and self._only_reads())
        )

    @property
    def has_lost_transaction(self) -> bool:
        """Whether a transaction of asyncpg's own, which is SQLAlchemy's, was ended by another."""
        return self._top_xact is not None and not self.is_closed() and not self.is_in_transaction()

    def _only_reads(self) -> bool:
        """Return what the server has reported of itself."""
        return (
            getattr(self._settings, "default_transaction_read_only", "off") == "on"
            or getattr(self._settings, "in_hot_standby", "off") == "on"
        )

    def _search_path_now(self) -> str | None:
        """Return what the server has reported of itself; before PostgreSQL 18, None.

        Then any statement may have changed it: a trigger can.
        """
        return getattr(self._settings, "search_path", None)

    # A job's own transaction.

    def begin(self) -> "Awaitable[object]":
        """Begin a job's transaction, under the limits of `serve`."""
        self.is_owned = True
        return self._send("BEGIN" + self._limits, BEGIN_TIMEOUT_S)

    def restart(self) -> "Awaitable[object]":
        """Roll back a job's transaction, and begin its next one; one message."""
        return self._send("ROLLBACK; BEGIN" + self._limits, CONCLUDE_TIMEOUT_S)

    def conclude(self) -> bool:
        """Be patient no longer than the worker's own statements need, which end the job.

        Returns:
            Whether `take_own_names` must come first.
        """
        self._config = self._concluding
        return bool(self._leaves) and (
            self._leaves >= Leaves.NAMES
            or self._search_path is None
            or self._search_path_now() != self._search_path
        )

    def take_own_names(self) -> "Awaitable[object]":
        """Leave the role and search_path that a handler has chosen for itself."""
        return self._send(OWN_NAMES + self._preamble, CONCLUDE_TIMEOUT_S)

    def commit(self) -> "Awaitable[object]":
        """Commit, and reset the session if need be."""
        self._has_written = self.is_owned  # the job's outcome, if nothing else
        if self._leaves:
            return self._end("COMMIT", COMMIT_TIMEOUT_S)
        return self._send("COMMIT", COMMIT_TIMEOUT_S)

    async def roll_back(self) -> None:
        """Roll back, and reset the session if need be; without an answer, terminate it.

        Never fails: a connection that is lost or given up is rolled back by the server.
        """
        if self.is_closed():
            return
        try:
            if self._is_doomed and self.is_pooled:
                await self._send(END_SESSION, ROLLBACK_TIMEOUT_S)
            await self._end("ROLLBACK", ROLLBACK_TIMEOUT_S)
        except TimeoutError:
            self.is_silent = True
            self.terminate()
        except Exception:  # noqa: BLE001 - whatever is wrong with it, the server will roll back
            self.terminate()

    async def _end(self, command: str, timeout_s: float) -> None:
        # A pooler keeps the session when this connection is replaced.
        has_traces = self._leaves is Leaves.TRACES
        reset = RESET if self._leaves and (self.is_pooled or not has_traces) else ""
        await self._send(command + reset, timeout_s)
        if reset and not has_traces:
            self._leaves = Leaves.NOTHING

    def _send(self, command: str, timeout_s: float) -> "Awaitable[object]":
        sent: Awaitable[object] = super().execute(command, timeout=timeout_s)
        return sent

    # Everybody's statements.

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> Any:  # noqa: ANN401, ASYNC109 - asyncpg's
        """As asyncpg's; a job must not begin or end a transaction by it."""
        if args:
            return await super().execute(query, *args, timeout=timeout)
        control = None if self.is_owned else _CONTROL.fullmatch(query)
        if control and (not self.is_watched or self._is_asyncpgs(control)):
            return await self._control(control)
        if self.is_watched:
            self.judge(query)
        return await super().execute(query, timeout=timeout)

    def _is_asyncpgs(self, control: re.Match[str]) -> bool:
        """Return whether asyncpg's own transaction sends this, and not a job by its text.

        It notes itself before it begins, and forgets itself before it ends.
        """
        return (self._top_xact is not None) == bool(control["begin"])

    async def _control(self, control: re.Match[str]) -> Any:  # noqa: ANN401
        if begin := control["begin"]:
            return await self._send(begin + self._limits, BEGIN_TIMEOUT_S)
        if control["commit"]:
            await self.commit()
            return "COMMIT"
        await self.roll_back()
        return "ROLLBACK"

    def _get_statement(self, query: str, timeout: float | None, **options: Any) -> Any:  # noqa: ANN401
        """What prepares every statement that has arguments or rows."""
        if self.is_watched and query not in CLEAN:
            self.judge(query)
        if self.is_pooled:
            # Without a name, the driver sends the statement's text with each use.
            options["named"] = ""
        return super()._get_statement(query, timeout, **options)

    def _copy_in(self, copy_stmt: str, *args: Any) -> Any:  # noqa: ANN401
        self._judge_copy(copy_stmt)
        return super()._copy_in(copy_stmt, *args)

    def _copy_out(self, copy_stmt: str, *args: Any) -> Any:  # noqa: ANN401
        self._judge_copy(copy_stmt)
        return super()._copy_out(copy_stmt, *args)

    def _judge_copy(self, sql: str) -> None:
        if self.is_watched:
            self.judge(sql)

    async def set_type_codec(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        """As asyncpg's; a job's codec is not for the next one."""
        self._is_doomed |= self.is_watched
        await super().set_type_codec(*args, **options)

    async def set_builtin_type_codec(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        """As asyncpg's; a job's codec is not for the next one."""
        self._is_doomed |= self.is_watched
        await super().set_builtin_type_codec(*args, **options)

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncpg's
        """Close within CLOSE_TIMEOUT_S, whether the server answers or not."""
        try:
            await super().close(timeout=CLOSE_TIMEOUT_S if timeout is None else timeout)
        except TimeoutError:
            self.is_silent = True
            self.terminate()


def _keep_alive(transport: Any) -> None:  # noqa: ANN401 - asyncio's or uvloop's
    """Have the system notice a peer that has vanished, where it can."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": KEEPALIVE_IDLE_S,
        "TCP_KEEPINTVL": KEEPALIVE_INTERVAL_S,
        "TCP_KEEPCNT": KEEPALIVE_COUNT,
        "TCP_USER_TIMEOUT": (KEEPALIVE_IDLE_S + KEEPALIVE_COUNT * KEEPALIVE_INTERVAL_S) * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
