"""Which keys' rows somebody holds for long, so that the jobs that want them stay away for a while.

A job that waits for a lock has a slot and a connection, and ends with a lock timeout. So after one,
its keys are closed to this process for a while that doubles with every further one, up to
`CLOSED_MAX_S`. Then a single job tries; whatever it finds out holds for the others. The first that
succeeds opens the key. Pure: the time is passed in.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

CLOSED_MIN_S: Final = 1.0
CLOSED_MAX_S: Final = 10.0
TRIAL_S: Final = 1.0
"""So long stays away who comes while another job tries the key."""
CLOSED_KEYS_MAX: Final = 10_000
"""Beyond, those that were closed first are forgotten."""


@dataclass(slots=True)
class _Closure:
    wait_s: float
    until_s: float
    is_tried: bool = False


class LockedKeys:
    """The closed keys of one process. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._closed: dict[str, _Closure] = {}

    def __len__(self) -> int:
        """Return how many keys are closed, or wait for a job that tries them."""
        return len(self._closed)

    def away_s(self, keys: "Iterable[str]", now_s: float) -> float:
        """Return for how many seconds a job with these keys stays away; 0: it may run now."""
        closed = self._closed
        return max((_left_s(closed[key], now_s) for key in keys if key in closed), default=0.0)

    def enter(self, keys: "Iterable[str]") -> None:
        """Note that a job runs with these keys: where one was closed, the job tries it."""
        for key in self._closed.keys() & set(keys):
            self._closed[key].is_tried = True

    def leave(self, keys: "Iterable[str]", *, succeeded: bool) -> None:
        """Note that a job with these keys has ended: they open if it succeeded."""
        for key in self._closed.keys() & set(keys):
            if succeeded:
                del self._closed[key]
            else:
                self._closed[key].is_tried = False

    def close(self, keys: "Iterable[str]", now_s: float) -> None:
        """Close keys after a lock timeout, for longer than the last time."""
        for key in keys:
            before = self._closed.pop(key, None)
            wait_s = CLOSED_MIN_S if before is None else min(CLOSED_MAX_S, 2 * before.wait_s)
            if before is not None and now_s < before.until_s:
                wait_s = before.wait_s  # two that waited together have found out the same thing
            self._closed[key] = _Closure(wait_s, now_s + wait_s)
        while len(self._closed) > CLOSED_KEYS_MAX:
            del self._closed[next(iter(self._closed))]


def _left_s(closure: _Closure, now_s: float) -> float:
    left_s = max(0.0, closure.until_s - now_s)
    return max(left_s, TRIAL_S) if closure.is_tried else left_s
