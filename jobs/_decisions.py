"""What a handler may answer besides its result. Decisions are values; failures are raised."""

from dataclasses import dataclass
from datetime import timedelta


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
