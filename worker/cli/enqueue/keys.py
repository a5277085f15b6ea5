"""Keys for lines that bring none: the same line of the same batch is the same job."""

import sqlite3
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from datetime import datetime

DIGEST_BYTES: Final = 16
BATCH_CHARACTERS_MAX: Final = 100
CACHE_KIB: Final = 8 * 1024


class Keys:
    """Makes keys from a batch's name, a line's content, and how often it has occurred so far.

    The position of a line does not matter: a file that was corrected, sorted or added to can be
    run again. Equal lines are counted, so two equal lines are two jobs. The counts are kept in a
    temporary file of SQLite's, which keeps memory constant however long the file is.
    """

    def __init__(self, batch: str) -> None:
        """Take a batch's name: jobs of another batch are other jobs, whatever they contain."""
        self._batch = batch
        # Used from one thread at a time, though not always the same.
        self._seen = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._seen.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._seen.execute("PRAGMA journal_mode = OFF")
        self._seen.execute("PRAGMA synchronous = OFF")
        self._seen.execute("CREATE TABLE seen (line BLOB PRIMARY KEY, n INTEGER) WITHOUT ROWID")
        self._seen.execute("BEGIN")

    def __enter__(self) -> Self:
        """Return these keys."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the temporary file."""
        self._seen.close()

    def of_content(self, kind: str, payload_json: str, run_at: "datetime | None") -> str:
        """Return the key of the next line with this content."""
        time = run_at.isoformat() if run_at else ""
        content = _digest(kind, payload_json, time)
        (occurrence,) = self._seen.execute(
            "INSERT INTO seen VALUES (?, 1) ON CONFLICT DO UPDATE SET n = n + 1 RETURNING n",
            (content,),
        ).fetchone()
        digest = _digest(self._batch, content.hex(), str(occurrence)).hex()
        return f"{self._batch[:BATCH_CHARACTERS_MAX]}:{digest}"


def _digest(*parts: str) -> bytes:
    """Hash parts so that no two lists of parts run together into the same text."""
    hashed = blake2b(digest_size=DIGEST_BYTES)
    for part in parts:
        data = part.encode()
        hashed.update(len(data).to_bytes(8, "big"))
        hashed.update(data)
    return hashed.digest()
