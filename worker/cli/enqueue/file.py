"""A file of jobs: read line by line, with progress, bad lines apart."""

import os
import stat
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Self

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from worker.cli._connections import open_connections
from worker.cli._options import UsageError, standard_input
from worker.cli.enqueue.keys import BATCH_CHARACTERS_MAX, Keys
from worker.cli.enqueue.lines import STDIN, BadLine, read_lines
from worker.cli.enqueue.loader import Loader, Totals
from worker.errors import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DONE: Final = 0
SOME_BAD: Final = 1
BAD_LINES_SHOWN_MAX: Final = 20


async def enqueue_file(file: str, batch: str | None, rejects: Path | None) -> int:
    """Enqueue every line of a file, print the totals, and return the exit code.

    Args:
        file: its path, or `STDIN`.
        batch: what its keys are made from, beside the lines; by default the file's name.
        rejects: where bad lines are written, if wanted.

    Raises:
        UsageError: the arguments do not fit each other, or a file cannot be opened.
        LoadingStoppedError: the database stayed away; running the same again is safe.
    """
    name = _batch_name(file, batch)
    if rejects is not None:
        _refuse_same_file(file, rejects)
    console = Console(stderr=True)
    with ExitStack() as exits:
        source = exits.enter_context(_source(file))
        keys = exits.enter_context(Keys(name))
        bad_lines = exits.enter_context(_BadLines(console, rejects))
        on_progress = exits.enter_context(_progress_bar(console, file))
        async with open_connections("enqueue") as opened:
            loader = Loader(
                opened.sessions,
                opened.redis,
                opened.settings.queue_name,
                on_bad=bad_lines.add,
                on_progress=on_progress,
            )
            totals = await loader.load(read_lines(source), keys)
    typer.echo(
        f"{totals.lines:,} lines: {totals.created:,} enqueued, "
        f"{totals.duplicates:,} were there already, {totals.bad:,} bad"
    )
    return SOME_BAD if totals.bad else DONE


class _BadLines:
    """Prints the first bad lines on standard error, and writes all into the rejects file."""

    def __init__(self, console: Console, rejects: Path | None) -> None:
        self._console = console
        self._path = rejects
        self._rejects: _RejectsFile | None = None
        self._count = 0

    def __enter__(self) -> Self:
        """Open the rejects file, so that one which cannot be written is told before any line.

        Raises:
            UsageError: it cannot be opened.
        """
        if self._path is not None:
            self._rejects = _RejectsFile(self._path)
        return self

    def __exit__(self, *_: object) -> None:
        """Close the rejects file, and print how many lines were not shown."""
        if self._rejects is not None:
            self._rejects.close()
        more = self._count - BAD_LINES_SHOWN_MAX
        if more > 0:
            where = f"all are in {self._path}" if self._path else "--rejects FILE keeps all"
            self._print(f"and {more:,} more bad lines; {where}")

    def add(self, bad: BadLine) -> None:
        """Take one bad line.

        Raises:
            UsageError: the rejects file cannot be written.
        """
        self._count += 1
        if self._count <= BAD_LINES_SHOWN_MAX:
            self._print(f"line {bad.line.number}: {bad.reason}")
        if self._rejects is not None:
            self._rejects.write(orjson.dumps(_reject(bad)) + b"\n")

    def _print(self, text: str) -> None:
        self._console.print(
            visible(text), markup=False, emoji=False, highlight=False, soft_wrap=True
        )


class _RejectsFile:
    """The file of bad lines. What an earlier run left in it goes with the first new bad line."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it if there is none.

        Raises:
            UsageError: it cannot be written.
        """
        self._path = path
        self._is_new = not path.exists()
        self._output = _open(path, "ab")
        self._is_empty = True

    def write(self, line: bytes) -> None:
        """Write a line.

        Raises:
            UsageError: it cannot be written, as on a full disk.
        """
        with _naming(self._path, "write"):
            if self._is_empty and self._path.is_file():
                self._output.truncate(0)
            self._is_empty = False
            self._output.write(line)

    def close(self) -> None:
        """Close the file; one that was made for nothing is removed.

        Raises:
            UsageError: the last lines cannot be written.
        """
        with _naming(self._path, "write"):
            self._output.close()
            if self._is_new and self._is_empty:
                self._path.unlink()


def _reject(bad: BadLine) -> dict[str, object]:
    text = bad.line.text.decode(errors="replace")
    return {"line": bad.line.number, "error": bad.reason, "text": text}


@contextmanager
def _source(file: str) -> "Iterator[BinaryIO]":
    if file == STDIN:
        yield standard_input()
        return
    with _open(Path(file), "rb") as source:
        yield source


def _open(path: Path, mode: str) -> BinaryIO:
    with _naming(path, "read" if mode == "rb" else "write"):
        return path.open(mode)  # type: ignore[return-value]  # both modes are binary


@contextmanager
def _naming(path: Path, verb: str) -> "Iterator[None]":
    try:
        yield
    except OSError as error:
        raise UsageError(f"cannot {verb} {path}: {error.strerror}") from None


@contextmanager
def _progress_bar(console: Console, file: str) -> "Iterator[Callable[[Totals], None]]":
    """Show progress by bytes where the size is known, and by lines in any case."""
    size = None if file == STDIN or not Path(file).is_file() else Path(file).stat().st_size
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("0 lines", total=size)

        def show(totals: Totals) -> None:
            bar.update(task, completed=totals.bytes_read, description=f"{totals.lines:,} lines")

        yield show


def _batch_name(file: str, batch: str | None) -> str:
    name = batch or (Path(file).name if file != STDIN else "")
    if not name:
        raise UsageError("lines from standard input need --batch NAME, so that they can be re-run")
    if batch and len(batch) > BATCH_CHARACTERS_MAX:
        raise UsageError(f"--batch has at most {BATCH_CHARACTERS_MAX} characters")
    return name


def _refuse_same_file(file: str, rejects: Path) -> None:
    """Refuse to write into what is being read: by its inode, since one file has many names.

    A terminal, a pipe or another device is no file that a write would destroy.

    Raises:
        UsageError: the two are the same file.
    """
    if _are_same_file(file, rejects):
        raise UsageError("--rejects would overwrite the file that is being read")


def _are_same_file(file: str, rejects: Path) -> bool:
    if file != STDIN and Path(file).resolve() == rejects.resolve():
        return True
    try:
        source = os.fstat(standard_input().fileno()) if file == STDIN else Path(file).stat()
        target = rejects.stat()
    except OSError:
        return False  # one of them does not exist, or standard input is no file
    return stat.S_ISREG(source.st_mode) and os.path.samestat(source, target)
