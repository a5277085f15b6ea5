"""The directory of a server: the lock that reserves it, and the server's log.

A pipe or a lock lives as long as any process holds it. Python closes files on exec, not on fork,
so a forked worker would keep our servers alive after `kill -9`, or keep their directory locked:
`private` files are closed in forked children.
"""

import fcntl
import os
from pathlib import Path
from typing import IO
from weakref import WeakSet

from .errors import DirectoryInUseError

LOG_BYTES_MAX = 4 * 1024 * 1024
TAIL_BYTES_MAX = 2_000

_files: WeakSet[IO[bytes]] = WeakSet()


def private(file: IO[bytes]) -> IO[bytes]:
    """Close this file in forked children; returns the same file."""
    _files.add(file)
    return file


def _close_all() -> None:
    for file in _files:
        file.close()


os.register_at_fork(after_in_child=_close_all)


class DirectoryLock:
    """Held while a server runs. A second manager gets an error at once; it does not wait."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[bytes] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None and not self._file.closed

    def acquire(self) -> None:
        """Take the lock, or say who has it."""
        if self.held:
            return
        file = self.path.open("a+b", buffering=0)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().decode()
            file.close()
            if not isinstance(error, BlockingIOError):
                raise
            raise DirectoryInUseError(
                f"{self.path.parent} is in use by process {owner}: "
                "stop that one, or choose another directory."
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        self._file = private(file)

    def release(self) -> None:
        """Let the next manager in; harmless when the lock is not held."""
        if self._file is not None:
            self._file.close()
            self._file = None


class ServerLog:
    """Written by the server itself; the newest few megabytes are kept over restarts.

    The open file carries a lock that the reaper, the server and all it forks inherit. So the
    lock is free exactly when the last of them has ended, whatever became of the others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._start = 0

    def open(self) -> IO[bytes]:
        """Begin a new run: `tail` speaks of what is written from here on."""
        if self.path.exists() and self.path.stat().st_size > LOG_BYTES_MAX:
            self.path.replace(self.path.with_suffix(".log.1"))
        file = private(self.path.open("ab", buffering=0))
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._start = file.seek(0, 2)
        return file

    def is_silent(self) -> bool:
        """Whether every process that could write here has ended."""
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except BlockingIOError:
            return False
        return True

    def tail(self) -> str:
        """The last lines of the current run."""
        with self.path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(self._start, end - TAIL_BYTES_MAX))
            return file.read().decode(errors="replace").strip()
