"""What a handler may answer besides its result. Decisions are values; failures are raised."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Rejected:
    """A business "no": final, stored, never retried. Whatever the handler wrote is rolled back.

    Args:
        code: a stable word for programs, like `insufficient_funds`.
        message: one sentence for people, with no personal data in it.
    """

    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Snooze:
    """Not yet: run the same job again after `delay`, without spending an attempt."""

    delay: timedelta


@dataclass(frozen=True, slots=True)
class Cancel:
    """The work is not wanted any more: final, stored as cancelled."""

    reason: str


@dataclass(frozen=True, slots=True)
class Continue:
    """Done so far: what the handler wrote is kept, and the same job goes on from `cursor`.

    So an hour's work is many short transactions, each of which takes effect once. A crash or a
    deploy costs the one that runs; attempts are counted anew in each.

    Args:
        cursor: what the next slice finds in `ctx.cursor`: a JSON value of at most 64 KiB.
        delay: how long to wait before it; any worker may run it.
    """

    cursor: Any
    delay: timedelta = timedelta()
