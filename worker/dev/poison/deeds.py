"""What poison does, and how it must end. A new deed is a function and a line in `DEEDS`."""

import asyncio
import ctypes
import os
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    from jobs import Context

EXIT_CODE: Final = 86
"""Of a process that a job ended by `os._exit`."""
LOCK_CLASS: Final = 7_007
"""The first key of the advisory locks that jobs leave behind."""
LONGER_THAN_ANY_LIMIT_S: Final = 600
LONGER_THAN_A_SESSIONS_LIMIT_S: Final = 17
"""More than `db.engine` lets a transaction rest (15 s), and less than the job may take."""
HUGE_BYTES: Final = 2**62


async def exit_by_system_exit(_ctx: "Context") -> None:
    """Call `sys.exit`."""
    sys.exit(EXIT_CODE)


async def exit_at_once(_ctx: "Context") -> None:
    """End the process with no word to anybody."""
    os._exit(EXIT_CODE)


async def crash(_ctx: "Context") -> None:
    """Read where no memory is."""
    ctypes.string_at(0)


async def kill_itself(_ctx: "Context") -> None:
    """Die as by the kernel's memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


async def take_all_memory(_ctx: "Context") -> None:
    """Ask for more memory than there is."""
    bytearray(HUGE_BYTES)


async def interrupt(_ctx: "Context") -> None:
    """Raise what Ctrl-C raises."""
    raise KeyboardInterrupt


class NotAnError(BaseException):
    """What no `except Exception` catches."""


async def raise_base_exception(_ctx: "Context") -> None:
    """Raise what is no Exception, as a panic of a native library does."""
    raise NotAnError


async def time_out(_ctx: "Context") -> None:
    """Raise a TimeoutError of its own."""
    async with asyncio.timeout(0.01):
        await asyncio.sleep(1)


async def cancel_itself(_ctx: "Context") -> None:
    """Cancel the task that it runs in."""
    task = asyncio.current_task()
    if task is not None:
        task.cancel()
    await asyncio.sleep(0)


async def raise_cancelled(_ctx: "Context") -> None:
    """Raise a cancellation that nobody asked for."""
    raise asyncio.CancelledError


class UnprintableError(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        """Fail."""
        raise ValueError("no text")


async def raise_unprintable(_ctx: "Context") -> None:
    """Raise what cannot be shown."""
    raise UnprintableError


class NulError(Exception):
    """Its text is none that PostgreSQL can keep."""


async def raise_nul(_ctx: "Context") -> None:
    """Raise a text with U+0000 and half of a surrogate pair."""
    raise NulError("a\x00b\ud800c")


async def wait_too_long(_ctx: "Context") -> None:
    """Take longer than the job may."""
    await asyncio.sleep(LONGER_THAN_ANY_LIMIT_S)


async def wait_in_a_statement(ctx: "Context") -> None:
    """Take longer than the job may, within PostgreSQL."""
    await _execute(ctx, f"SELECT pg_sleep({LONGER_THAN_ANY_LIMIT_S})")


async def rest_in_transaction(ctx: "Context") -> None:
    """Leave the transaction idle for longer than a session may, within the job's own time."""
    await _execute(ctx, "SELECT 1")
    await asyncio.sleep(LONGER_THAN_A_SESSIONS_LIMIT_S)
    await _execute(ctx, "SELECT 1")


async def kill_its_backend(ctx: "Context") -> None:
    """End its own connection at the server."""
    await _execute(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
    await _execute(ctx, "SELECT 1")


async def commit_as_text(ctx: "Context") -> None:
    """End the job's transaction behind the worker's back."""
    await _execute(ctx, "COMMIT")


async def leave_settings(ctx: "Context") -> None:
    """Leave settings in which the next job could do nothing."""
    await _execute(ctx, "SET search_path TO pg_catalog")
    await _execute(ctx, "SET default_transaction_read_only TO on")
    await _execute(ctx, "SET statement_timeout TO 1000")


async def leave_lock(ctx: "Context") -> None:
    """Leave a lock that lasts as long as the session."""
    await _execute(ctx, f"SELECT pg_advisory_lock({LOCK_CLASS}, {ctx.job_id.int % 2**31})")


async def leave_table(ctx: "Context") -> None:
    """Leave a temporary table that hides the accounts from whoever names no schema."""
    await _execute(ctx, "CREATE TEMPORARY TABLE accounts (id integer)")


async def leave_listener(ctx: "Context") -> None:
    """Leave a session that is sent notifications."""
    await _execute(ctx, "LISTEN poison")


async def _execute(ctx: "Context", statement: str) -> None:
    session: AsyncSession = ctx.store.session
    await session.execute(text(statement))


@dataclass(frozen=True, slots=True)
class Deed:
    """One way to misbehave."""

    do: "Callable[[Context], Awaitable[None]]"
    error: str | None
    """The name of the error that the job's row must end with; None: it completes."""
    exit_code: int | None = None
    """Of the worker process that it ends, if it does."""
    has_time: bool = False
    """Whether the job may take longer than the database lets a session rest."""

    @property
    def state(self) -> str:
        """The state that it must end in."""
        return "completed" if self.error is None else "dead"


DIED: Final = "WorkerDied"
UNNAMED: Final = "Error"
"""SQLAlchemy's name for an error of the server that it has no class for."""

DEEDS: Final = {
    "sys-exit": Deed(exit_by_system_exit, "SystemExit"),
    "os-exit": Deed(exit_at_once, DIED, exit_code=EXIT_CODE),
    "segfault": Deed(crash, DIED, exit_code=128 + signal.SIGSEGV),
    "sigkill": Deed(kill_itself, DIED, exit_code=128 + signal.SIGKILL),
    "no-memory": Deed(take_all_memory, "MemoryError"),
    "keyboard-interrupt": Deed(interrupt, "KeyboardInterrupt"),
    "base-exception": Deed(raise_base_exception, "NotAnError"),
    "own-timeout": Deed(time_out, "TimeoutError"),
    "self-cancel": Deed(cancel_itself, "ForeignCancelError"),
    "raised-cancel": Deed(raise_cancelled, "ForeignCancelError"),
    "unprintable": Deed(raise_unprintable, "UnprintableError"),
    "nul-in-error": Deed(raise_nul, "NulError"),
    "too-slow": Deed(wait_too_long, "JobTimeoutError"),
    "slow-statement": Deed(wait_in_a_statement, "JobTimeoutError"),
    "idle-in-transaction": Deed(rest_in_transaction, None, has_time=True),
    "own-backend": Deed(kill_its_backend, UNNAMED),
    "commit-as-text": Deed(commit_as_text, "NotYoursError"),
    "settings-left": Deed(leave_settings, None),
    "lock-left": Deed(leave_lock, None),
    "table-left": Deed(leave_table, None),
    "listener-left": Deed(leave_listener, None),
}
