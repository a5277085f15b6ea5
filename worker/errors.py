"""What a job's caller may get instead of a result, and what stops a worker from starting.

TellerError
├── JobDeadError        the job failed for good; its row has the errors
├── JobCancelledError   the job was cancelled before it took effect
├── JobConflictError    the id belongs to a job with another payload
└── StartupError        the worker cannot start; the message says what to do
"""

import sys
from typing import Final

USAGE_ERROR: Final = 2


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
    sys.stderr.write(f"error: {error}\n")
    return USAGE_ERROR
