"""A directory of this machine, or one that is mounted."""

import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from jobs._reports.destination import Published, digest_of

if TYPE_CHECKING:
    from pathlib import Path

UNFINISHED: Final = ".unfinished"


class Directory:
    """Publishes by a link, which appears whole, or by a rename where there are no links."""

    def __init__(self, root: "Path") -> None:
        self._root = root

    def workspace(self) -> "Path":
        """Return a hidden folder in the directory: the same file system, so a link publishes."""
        return self._root / UNFINISHED

    def publish(self, file: "Path", name: str) -> Published:
        """Flush the file to the disk, then link it to its name, then flush the directory."""
        target = self._root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        _sync(file)
        try:
            os.link(file, target)
        except FileExistsError:
            pass
        except OSError:
            _publish_without_links(file, target)
        for folder in (target.parent, *target.parent.parents):
            _sync(folder)
            if folder == self._root:
                break
        return Published(target.as_uri(), *digest_of(target))


def _publish_without_links(file: "Path", target: "Path") -> None:
    """Publish on a file system that has no hard links: a rename, unless the name is there."""
    if target.exists():
        return
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        shutil.copyfile(file, aside)
        _sync(aside)
        aside.rename(target)
    finally:
        with suppress(FileNotFoundError):
            aside.unlink()


def _sync(path: "Path") -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
