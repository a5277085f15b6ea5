"""One manager per directory: a lock the kernel drops with the process that held it."""

import fcntl
import os
from pathlib import Path
from typing import IO

from .errors import DirectoryInUseError
from .private import private


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
