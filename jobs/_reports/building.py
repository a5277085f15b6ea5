"""One report from the snapshot to the file: stream the lines, render them, publish the result."""

import asyncio
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Literal

import orjson

from jobs._reports import as_csv
from jobs._reports.workspace import DOCUMENT, OUTPUT

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from db.bank.reports import Sink
    from jobs._reports.document import Document, Format

SPOOL_BYTES: Final = 1024 * 1024
ERROR_CHARACTERS_MAX: Final = 300
PROJECT: Final = Path(__file__).parents[2]

Stage = Literal["reading", "writing", "publishing"]
Tell = Callable[[Stage, int], None]
"""Called with the stage and how many lines it has done; it must neither block nor raise."""


class RenderError(Exception):
    """The rendering process failed; the message says where, and quotes nothing of the report."""


@dataclass(slots=True)
class Spool:
    """Writes a file in large pieces, in a thread: a slow disk must not stop the event loop."""

    file: BinaryIO
    tell: Callable[[int], None]
    _pending: bytearray
    _lines: int = 0

    async def write(self, chunk: bytes) -> None:
        """Take what COPY brings; awaiting the disk holds the database back."""
        self._pending += chunk
        if len(self._pending) >= SPOOL_BYTES:
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending."""
        pending, self._pending = self._pending, bytearray()
        await asyncio.to_thread(self.file.write, pending)
        self._lines += pending.count(b"\n")
        self.tell(self._lines)


async def read_lines(
    target: Path,
    copy: "Callable[[Sink], Awaitable[None]]",
    tell: Tell,
    *,
    head: bytes = b"",
    tail: bytes = b"",
) -> None:
    """Stream the report's lines into a file, in constant memory."""
    with target.open("wb", buffering=0) as file:
        spool = Spool(file, lambda lines: tell("reading", lines), bytearray())
        await spool.write(head)
        await copy(spool.write)
        await spool.write(tail)
        await spool.flush()


async def write_csv(
    document: "Document", folder: Path, copy: "Callable[[Sink], Awaitable[None]]", tell: Tell
) -> None:
    """Write the finished CSV: what the database streams is most of the file already."""
    await read_lines(
        folder / OUTPUT,
        copy,
        tell,
        head=as_csv.head_of(document),
        tail=as_csv.tail_of(document),
    )


async def write_rendered(document: "Document", folder: Path, format: "Format", tell: Tell) -> None:  # noqa: A002 - the report's own word
    """Render the lines that were read, in a process of its own that ends when this is cancelled.

    Raises:
        RenderError: the process failed.
    """
    (folder / DOCUMENT).write_bytes(orjson.dumps(document.to_json()))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "jobs._reports.render", str(folder), format),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=PROJECT,
        # Nothing of our environment: it holds passwords that a renderer has no use for.
        env={"PATH": os.defpath, "PYTHONUTF8": "1", "TMPDIR": str(folder)},
        start_new_session=True,  # Ctrl-C is for the worker, which then decides
    )
    try:
        if process.stdout is None or process.stderr is None:
            raise AssertionError("both are pipes")
        async for line in process.stdout:
            tell("writing", int(line))
        fault = await process.stderr.read(ERROR_CHARACTERS_MAX)
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if code != 0:
        raise RenderError(f"exit code {code}: {fault.decode(errors='replace').strip()}")
