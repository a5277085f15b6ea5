"""A server's log: its tail explains failures, and it tells whether the server still lives."""

import fcntl
from pathlib import Path
from typing import IO

from .private import private

LOG_BYTES_MAX = 4 * 1024 * 1024
TAIL_BYTES_MAX = 2_000


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
