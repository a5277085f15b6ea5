"""Metrics of a process that does not exist, for tests of what shows them."""

import time

from db.backlog import Backlog
from worker.monitoring.backlog import Census, Count
from worker.monitoring.loop_lag import Pulse
from worker.monitoring.metrics import Metrics, Process
from worker.monitoring.state import Condition


def sample_metrics(*kinds):
    """Return metrics with a value for every gauge."""
    census = Census(sessions=None)  # type: ignore[arg-type]  # it is never asked to count
    census.last = Count(Backlog(0, 0, 0, 0.0, 0.0), [], time.monotonic())
    return Metrics(kinds, "1.2.3", Process(16, Condition(), Pulse(), census))
