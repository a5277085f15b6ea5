"""Metrics of a process that does not exist, for tests of what shows them."""

import time

from db.workers import Backlog, Blocked
from worker.monitoring.backlog import BacklogMonitor, Snapshot
from worker.monitoring.loop_lag import LoopLag
from worker.monitoring.metrics import Metrics, Process
from worker.monitoring.state import WorkerState


def sample_metrics(*kinds):
    """Return metrics with a value for every gauge."""
    backlog = BacklogMonitor(sessions=None)  # type: ignore[arg-type]  # it takes no snapshot
    blocked = tuple(Blocked(kind, "newer_worker", 2, 1.0) for kind in (*kinds, "new", "newer"))
    backlog.last = Snapshot(Backlog(0, 0, 0, 0.0, 0.0, blocked), [], time.monotonic())
    return Metrics(kinds, "1.2.3", Process(16, WorkerState(), LoopLag(), backlog))
