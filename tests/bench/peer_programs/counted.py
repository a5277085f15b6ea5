"""What every peer's no-op does: count itself, and note the time at a twentieth and at the end.

Nothing but a number in the process is touched, so the peer's own broker has no more to do.
"""

import itertools
import os
import time
from pathlib import Path

WARM_UP_PART = 0.05


def first(jobs: int) -> int:
    """Return the job from which on the rate counts: start-up and the first rush are over."""
    return max(1, int(jobs * WARM_UP_PART))


class Counter:
    """Counts jobs, and writes when the first and the last one that matter were done."""

    def __init__(self, jobs: int, report: Path) -> None:
        self._report = report
        self._noted = {first(jobs), jobs}
        self._numbers = itertools.count(1)  # each thread gets a number of its own

    def __call__(self) -> None:
        """Count one job."""
        number = next(self._numbers)
        if number in self._noted:
            with self._report.open("a") as report:
                report.write(f"{number} {time.perf_counter()}\n")


count = Counter(
    int(os.environ.get("BENCH_JOBS", "1")), Path(os.environ.get("BENCH_REPORT", os.devnull))
)
