"""The edge of the command line: whatever a command meets, a person reads one sentence.

Exit codes: the command's own; `USAGE_ERROR` for what the caller or the servers can mend;
`OWN_ERROR` for a mistake in Teller itself. `TELLER_TRACEBACK=1` adds the traceback.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from io import TextIOWrapper
from typing import Final

from worker.errors import USAGE_ERROR, TellerError, report_error, tell

OWN_ERROR: Final = 70
"""EX_SOFTWARE of sysexits.h."""
INTERRUPTED: Final = 130
OUTPUT_GONE: Final = 1
TRACEBACK: Final = "TELLER_TRACEBACK"

_OUTPUT_FAILED: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF})
_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR = range(3)


def run_guarded(command: Callable[[], object], arguments: Sequence[str]) -> int:
    """Run a command line, tell what went wrong in one sentence, and return the exit code.

    Args:
        command: parses the arguments and does what they ask; it may raise `SystemExit`.
        arguments: what the operating system passed.
    """
    try:
        _prepare_streams()
        _require_text(arguments)
        code = _code_of(command)
        _flush_output()
    except BrokenPipeError:
        _discard_output()  # who read it has seen enough
        return OUTPUT_GONE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # noqa: BLE001 - this is the edge
        return _report(error)
    return code


def _code_of(command: Callable[[], object]) -> int:
    try:
        command()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _report(error: Exception) -> int:
    if os.environ.get(TRACEBACK, "0") not in {"", "0"}:
        for line in traceback.format_exception(error):
            for one in line.splitlines():
                tell(one)
    if isinstance(error, TellerError):
        return report_error(error)
    # The servers' first: a lost connection is an OSError too.
    sentence = _about_servers(error) or _about_files(error)
    if sentence is not None:
        tell(f"error: {sentence}")
        return USAGE_ERROR
    tell(
        f"error: a mistake in Teller itself ({type(error).__name__}: {_first_line(error)}): "
        f"please report it; with {TRACEBACK}=1 the same command shows where"
    )
    return OWN_ERROR


def _about_files(error: Exception) -> str | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.filename is not None:
        return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}"
    if error.errno in _OUTPUT_FAILED:
        _discard_output()
        return f"cannot write the output: {error.strerror}"
    return f"the system refuses: {error.strerror}"


def _about_servers(error: Exception) -> str | None:
    """Ask the drivers' modules, which a command that met no server has not imported."""
    if "sqlalchemy" not in sys.modules:
        return None
    sentence: str | None = import_module("worker.cli._faults").sentence_about(error)
    return sentence


def _first_line(error: Exception) -> str:
    try:
        lines = str(error).splitlines()
    except Exception:  # noqa: BLE001 - it cannot say what it is
        return "without words"
    return lines[0] if lines else "without words"


def _require_text(arguments: Sequence[str]) -> None:
    """Refuse an argument with bytes that are not UTF-8: no file format and no column takes them.

    Raises:
        TellerError: one of them has such bytes.
    """
    for number, argument in enumerate(arguments, start=1):
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise TellerError(
                f"argument {number} is not UTF-8: {argument} (write it in UTF-8; "
                "a file of that name must be renamed, or come from standard input)"
            ) from None


def _prepare_streams() -> None:
    """Keep the three standard descriptors from becoming a database's connection, and see to ASCII.

    Raises:
        TellerError: standard output is closed.
    """
    output_is_closed = sys.stdout is None
    for descriptor in (_STANDARD_INPUT, _STANDARD_OUTPUT, _STANDARD_ERROR):
        _open_if_closed(descriptor)
    if output_is_closed:
        raise TellerError("standard output is closed: send it to a file or a pipe, or to /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open_if_closed(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)  # the lowest that is free, so often itself
        if opened == descriptor:
            os.set_inheritable(opened, True)  # noqa: FBT003 - a C function's only argument
        else:
            os.dup2(opened, descriptor)
            os.close(opened)


def _flush_output() -> None:
    if sys.stdout is not None and not sys.stdout.closed:
        sys.stdout.flush()


def _discard_output() -> None:
    """Let what is left of the output go nowhere, or Python would complain of it at exit."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
