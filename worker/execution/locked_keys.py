"""Which rows somebody holds for long, by the keys of the jobs that want them: those stay away.

A job that waits for a lock has a slot and a connection, and ends with a lock timeout. So after one,
jobs with the same keys are kept away for a while that doubles with every further one, up to
`CLOSED_MAX_S`. Then a single job tries; whatever it finds out holds for the others. The first that
succeeds lets all in.

A lock timeout does not say which of a job's keys it was. So one key alone is closed when jobs with
different keys beside it have timed out and none with it has succeeded since; and for half as long,
so that others find out sooner that it was not the one. Pure: the time is passed in.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

CLOSED_MIN_S: Final = 1.0
CLOSED_MAX_S: Final = 10.0
ONE_KEY_PART: Final = 0.5
"""The part of a wait for which one key alone is closed."""
TRIAL_S: Final = 1.0
"""So long stays away who comes while another job tries the key."""
REMEMBERED_MAX: Final = 10_000
"""Beyond, what was closed or suspected first is forgotten."""

Keys = frozenset[str]


@dataclass(slots=True)
class _Closure:
    wait_s: float
    until_s: float
    is_tried: bool = False


class LockedKeys:
    """What is closed in one process. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._closed: dict[Keys, _Closure] = {}
        self._suspected: dict[str, Keys] = {}
        """Keys, and with which others beside them a job timed out."""

    def __bool__(self) -> bool:
        """Return whether anything is closed, or suspected."""
        return bool(self._closed or self._suspected)

    def away_s(self, keys: Keys, now_s: float) -> float:
        """Return for how many seconds a job with these keys stays away; 0: it may run now."""
        return max((_left_s(closure, now_s) for closure in self._closures(keys)), default=0.0)

    def enter(self, keys: Keys) -> None:
        """Note that a job runs with these keys: where they were closed, it tries them."""
        for closure in self._closures(keys):
            closure.is_tried = True

    def succeed(self, keys: Keys) -> None:
        """Note that a job with these keys had all its locks: nothing keeps others from them."""
        for name in _names(keys):
            self._closed.pop(name, None)
        for key in keys:
            self._suspected.pop(key, None)

    def give_up(self, keys: Keys) -> None:
        """Note that a job ended, and nothing is known of its locks."""
        for closure in self._closures(keys):
            closure.is_tried = False

    def time_out(self, keys: Keys, acquitted: "Collection[str]", now_s: float) -> None:
        """Close keys after a lock timeout, for longer than the last time.

        Args:
            keys: the job's.
            acquitted: those of them with which another job succeeded meanwhile.
            now_s: the time.
        """
        self.give_up(keys)
        self._close(keys, now_s, 1.0)
        for key in keys.difference(acquitted) if len(keys) > 1 else ():
            if self._suspected.setdefault(key, keys) != keys:
                self._close(frozenset([key]), now_s, ONE_KEY_PART)
        _forget_first(self._closed)
        _forget_first(self._suspected)

    def _closures(self, keys: Keys) -> "Iterable[_Closure]":
        closed = self._closed
        return [closed[name] for name in _names(keys) if name in closed]

    def _close(self, name: Keys, now_s: float, part: float) -> None:
        before = self._closed.pop(name, None)
        wait_s = part * CLOSED_MIN_S
        if before is not None:
            # Two that have waited together have found out the same thing.
            grown_s = before.wait_s if now_s < before.until_s else 2 * before.wait_s
            wait_s = min(part * CLOSED_MAX_S, grown_s)
        self._closed[name] = _Closure(wait_s, now_s + wait_s)


def _names(keys: Keys) -> list[Keys]:
    return [keys, *(frozenset([key]) for key in keys)] if len(keys) > 1 else [keys]


def _left_s(closure: _Closure, now_s: float) -> float:
    left_s = max(0.0, closure.until_s - now_s)
    return max(left_s, TRIAL_S) if closure.is_tried else left_s


def _forget_first(remembered: "dict[str, Keys] | dict[Keys, _Closure]") -> None:
    while len(remembered) > REMEMBERED_MAX:
        del remembered[next(iter(remembered))]  # type: ignore[arg-type]
