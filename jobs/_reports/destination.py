"""Where reports go: a directory or a bucket. A name is published once, whole, and never changed.

A second publication of a name keeps what is there and answers with the digest of that: whoever
finished the job first has given its callers that digest.
"""

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from pathlib import Path

READ_BYTES: Final = 1024 * 1024


class DestinationError(Exception):
    """`TELLER_REPORTS_URL` names no place for reports; the message says what would."""


@dataclass(frozen=True, slots=True)
class Published:
    """A finished report, where it can be fetched."""

    url: str
    sha256: str
    size_bytes: int


class Destination(Protocol):
    """A place that keeps finished reports. Its methods block: call them in a thread."""

    def workspace(self) -> "Path":
        """Return a local folder for unfinished files."""

    def publish(self, file: "Path", name: str) -> Published:
        """Make the file appear under the name, whole or not at all; an existing name is kept."""


def digest_of(file: "Path") -> tuple[str, int]:
    """Return a file's SHA-256 and its size, in constant memory."""
    digest = hashlib.sha256()
    size = 0
    with file.open("rb") as stream:
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
