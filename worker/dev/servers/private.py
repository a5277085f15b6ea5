"""Files that must die with this process, even when it has forked.

A pipe or a lock lives as long as any process holds it. Python closes files on exec, not on fork,
so a forked worker would keep our servers alive after `kill -9`, or keep their directory locked.
"""

import os
from typing import IO
from weakref import WeakSet

_files: WeakSet[IO[bytes]] = WeakSet()


def private(file: IO[bytes]) -> IO[bytes]:
    """Have forked children close this file at once; gives the same file back."""
    _files.add(file)
    return file


def _close_all() -> None:
    for file in _files:
        file.close()


os.register_at_fork(after_in_child=_close_all)
