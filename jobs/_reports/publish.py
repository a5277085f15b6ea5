"""Where reports go: a directory or a bucket. A name is published once, whole, and never changed.

A second publication of a name keeps what is there and answers with the digest of that: whoever
finished the job first has told its callers about those bytes.
"""

import hashlib
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

from worker.errors import StartupError

READ_BYTES: Final = 1024 * 1024
UNFINISHED: Final = ".unfinished"


@dataclass(frozen=True, slots=True)
class Published:
    """A finished report, where it can be fetched."""

    url: str
    sha256: str
    size_bytes: int


class Destination(Protocol):
    """A place that keeps finished reports. Its methods block: call them in a thread."""

    def workspace(self) -> Path:
        """Return a local folder for unfinished files."""

    def publish(self, file: Path, name: str) -> Published:
        """Make the file appear under the name, whole or not at all; an existing name is kept."""


def destination_of(url: str) -> Destination:
    """Return where a URL points.

    Raises:
        StartupError: it is neither a directory nor a bucket; the message says what is.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path:
        return Directory(Path(url2pathname(parts.path)))
    if parts.scheme == "s3":
        from jobs._reports.bucket import Bucket  # its library is large; a directory needs none

        return Bucket(parts)
    raise StartupError(
        "TELLER_REPORTS_URL: give a directory like file:///var/lib/teller/reports, "
        "or a bucket like s3://bucket/prefix"
    )


class Directory:
    """A directory of this machine, or one that is mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def workspace(self) -> Path:
        """Return a hidden folder in the directory: the same file system, so a link publishes."""
        return self._root / UNFINISHED

    def publish(self, file: Path, name: str) -> Published:
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


def digest_of(file: Path) -> tuple[str, int]:
    """Return a file's SHA-256 and its size, in constant memory."""
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as stream:
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _publish_without_links(file: Path, target: Path) -> None:
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


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
