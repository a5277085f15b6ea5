"""A worker process like any other, that runs poison beside the registered jobs."""

from worker.process.signals import hold_signals

if __name__ == "__main__":
    hold_signals()  # before the imports below, which take a second

import sys

from jobs import registry
from worker.dev.poison import JOBS
from worker.process.__main__ import main

if __name__ == "__main__":
    sys.exit(main({**registry(), **JOBS}))
