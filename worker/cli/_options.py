"""What the command lines share: how a wrong one is refused, and how times are written."""

import getpass
import re
import socket
import sys
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, Final

import typer

from worker.errors import TellerError

DURATION_MAX: Final = timedelta(days=36_500)

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class UsageError(TellerError):
    """The command line asks for what cannot be done; the message says what can."""


def command_line(**options: Any) -> typer.Typer:  # noqa: ANN401 - Typer's own
    """Return an empty Typer app for one command, with the options that all of them have."""
    # As Markdown, since otherwise every line of a docstring stays a line of the help.
    return typer.Typer(add_completion=False, rich_markup_mode="markdown", **options)


def standard_input() -> BinaryIO:
    """Return standard input, as bytes.

    Raises:
        UsageError: it is closed, as a daemon's often is.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed: name a file, or give the input with a pipe")
    return sys.stdin.buffer


def confirm(question: str) -> None:
    """Ask a person, and end the command unless the answer is yes.

    Raises:
        UsageError: nobody can be asked.
    """
    if sys.stdin is None:
        raise UsageError("standard input is closed, so nobody can be asked: give --yes")
    typer.confirm(question, abort=True)


def operator() -> str:
    """Return who runs this command, as user@host."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"an unknown user at {socket.gethostname()}"


def parse_duration(text: str, option: str) -> timedelta:
    """Return a duration such as 90s, 5m, 2h or 1d.

    Raises:
        UsageError: it is none, or longer than `DURATION_MAX`.
    """
    duration = _duration(text)
    if duration is None:
        raise UsageError(
            f"{option} is a whole number and a unit: 90s, 5m, 2h, 1d; at most {DURATION_MAX.days}d"
        )
    return duration


def parse_time(text: str, option: str) -> datetime:
    """Return a time in ISO 8601 as it is written: without a time zone if it has none.

    Raises:
        UsageError: it is no time.
    """
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} is a time like 2026-01-31T09:00:00+01:00") from None


def parse_since(text: str, option: str) -> datetime:
    """Return the time so long ago, for a duration, or the time given, in UTC by default.

    Raises:
        UsageError: it is neither a duration nor a time.
    """
    ago = _duration(text)
    if ago is not None:
        return datetime.now(UTC) - ago
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{option} is 30m, 2h, 7d, or a time like 2026-01-31T09:00") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _duration(text: str) -> timedelta | None:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", text)
    if found is None:
        return None
    duration = timedelta(**{_UNITS[found[2]]: int(found[1])})
    return duration if duration <= DURATION_MAX else None
