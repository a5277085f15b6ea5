"""A worker process like any other, that knows chaos' own jobs beside the registered ones."""

from worker.process.signals import hold_signals

if __name__ == "__main__":
    hold_signals()  # before the imports below, which take a second

import sys
from typing import TYPE_CHECKING, Final

from jobs import registry
from worker.dev import poison
from worker.dev.chaos.errand import run_errand
from worker.process.__main__ import main

if TYPE_CHECKING:
    from jobs import Job

JOBS: "Final[dict[str, Job]]" = {**registry(), **poison.JOBS, run_errand.kind: run_errand}

if __name__ == "__main__":
    sys.exit(main(JOBS))
