"""What a job's caller may get instead of a result, and what stops a command or a worker.

TellerError
├── JobDeadError        the job failed for good; its row has the errors
├── JobCancelledError   the job was cancelled before it took effect
├── JobConflictError    the id belongs to a job with another payload
└── StartupError        the worker cannot start; the message says what to do
"""

import sys
import unicodedata
from contextlib import suppress
from typing import Final

USAGE_ERROR: Final = 2

_NOT_SHOWN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what a terminal obeys or hides: controls, bidi marks, surrogates."""


class TellerError(Exception):
    """The base of all errors here."""


class JobDeadError(TellerError):
    """The job failed for good."""


class JobCancelledError(TellerError):
    """The job was cancelled before it took effect."""


class JobConflictError(TellerError):
    """The id belongs to a job with another payload."""


class StartupError(TellerError):
    """The worker cannot start."""


def report_error(error: TellerError) -> int:
    """Write an expected error to standard error as one line; return the exit code for it."""
    tell(f"error: {error}")
    return USAGE_ERROR


def tell(line: str) -> None:
    """Write one line to standard error, whatever the line holds and wherever the stream goes."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):  # closed, or its disk is full: nowhere left to tell
            sys.stderr.write(f"{visible(line)}\n")
            sys.stderr.flush()


def visible(text: str) -> str:
    r"""Return a text as one line that a terminal shows whole and does not obey.

    Control characters, line breaks, marks of direction and other invisible characters, and lone
    surrogates are written as in Python's source: `\x1b`, `\n`, `\u202e`.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if unicodedata.category(character) in _NOT_SHOWN:
        return character.encode("unicode_escape").decode("ascii")
    return character
