"""The rendering process: `python -m jobs._reports.render FOLDER FORMAT`.

A process of its own, because formatting is work for a CPU, and the worker's event loop has leases
to renew. It knows no database and no settings; it reads the folder, writes one file into it, and
says on its standard output how many lines it has done.
"""

import csv
import json
import os
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

from jobs._reports.document import Document
from jobs._reports.workspace import DOCUMENT, LINES, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Iterator

NICENESS: Final = 10  # the jobs that run meanwhile come first
TOLD_EVERY_S: Final = 0.1


class Progress:
    """Counts lines, and says so now and then."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._done = 0
        self._told_at = 0.0

    def __call__(self) -> None:
        """Count one line."""
        self._done += 1
        if self._done % 256 == 0 and time.monotonic() - self._told_at > TOLD_EVERY_S:
            self._told_at = time.monotonic()
            self._out.write(f"{self._done}\n")
            self._out.flush()


def render(folder: Path, format: str, wrote: Progress) -> None:  # noqa: A002 - the report's own word
    """Read `DOCUMENT` and `LINES` in the folder, and write `OUTPUT`."""
    document = Document.from_json(json.loads((folder / DOCUMENT).read_bytes()))
    writer = import_module(f"jobs._reports.as_{format}")
    with (folder / LINES).open(encoding="utf-8", newline="") as stream:
        writer.write(document, _rows(stream), folder / OUTPUT, wrote)


def _rows(stream: TextIO) -> "Iterator[list[str]]":
    return csv.reader(stream, strict=True)


def main() -> int:
    """Render, or say which kind of error it was: its message could quote a name."""
    # Without a parent that reads our progress there is nobody to render for.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.nice(NICENESS)
    folder, format_ = sys.argv[1:]
    try:
        render(Path(folder), format_, Progress(sys.stdout))
    except Exception as error:  # noqa: BLE001 - whatever it is, only its kind is told
        where = traceback.extract_tb(error.__traceback__)[-1]
        sys.stderr.write(f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
