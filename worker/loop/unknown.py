"""Functions that this worker does not know: said once each, and looked at ever more seldom.

Their jobs wait in the queue for another version of the worker. However many there are, looking at
them must not cost this one its time.
"""

from dataclasses import dataclass
from typing import Final

FUNCTIONS_MAX: Final = 1_000
"""Functions that are remembered; clients may name as many as they like."""
WINDOW_S: Final = 60.0
"""How long jobs are counted for, and how often a function is said to be unknown."""
LOOKS_PER_S: Final = 100
"""Jobs of one function that are looked at in a second, once there are many."""
DELAY_MIN_MS: Final = 1_000
DELAY_MAX_MS: Final = 60_000


@dataclass(slots=True)
class _Window:
    ends_at: float
    count: int = 0
    previous: int = 0


class UnknownFunctions:
    """Counts the jobs of each function that were put back."""

    def __init__(self) -> None:
        self._windows: dict[str, _Window] = {}

    def note(self, name: str, now: float) -> tuple[int, bool]:
        """Count a job that is put back; return its shortest delay in ms, and whether to say so.

        >>> functions = UnknownFunctions()
        >>> functions.note("f", 0.0), functions.note("f", 1.0), functions.note("f", 61.0)
        ((1000, True), (1000, False), (1000, True))
        """
        window = self._windows.pop(name, None)
        say = window is None or now >= window.ends_at
        if window is None or say:
            window = _Window(now + WINDOW_S, previous=window.count if window else 0)
        self._windows[name] = window
        if len(self._windows) > FUNCTIONS_MAX:
            del self._windows[next(iter(self._windows))]
        window.count += 1
        jobs = max(window.count, window.previous)
        return min(max(jobs * 1000 // LOOKS_PER_S, DELAY_MIN_MS), DELAY_MAX_MS), say
