"""A folder for one report's unfinished files, gone when the report is done or its worker is.

Its files have names that no reader of finished reports looks for. A worker that was killed cannot
tidy up: the lock it held tells the next one that nobody is at work there any more.
"""

import fcntl
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LOCK: Final = "lock"
DOCUMENT: Final = "document.part"
LINES: Final = "lines.part"
OUTPUT: Final = "report.part"
ABANDONED_SWEPT_MAX: Final = 100


@contextmanager
def workspace(parent: Path) -> "Iterator[Path]":
    """Make a folder in `parent` that only this process uses, and remove it whatever happens."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix="report-", dir=parent))
    try:
        with (folder / f"new-{LOCK}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Locked before it has its name: nobody can find it unlocked.
            (folder / f"new-{LOCK}").rename(folder / LOCK)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _sweep(parent: Path) -> None:
    """Remove the folders of workers that are gone."""
    for folder in list(parent.glob("report-*"))[:ABANDONED_SWEPT_MAX]:
        try:
            with (folder / LOCK).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # somebody works there, or is just beginning to, or has just gone
