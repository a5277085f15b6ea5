"""Metrics of a process that does not exist, for tests of what shows them."""

import time
from datetime import UTC, datetime

from db.pauses import Pause
from db.workers import Backlog, Blocked, EndpointTrouble, OpenBatches, QueueBacklog
from worker.monitoring.backlog import BacklogMonitor, Snapshot
from worker.monitoring.loop_lag import LoopLag
from worker.monitoring.metrics import Metrics, Process
from worker.monitoring.state import WorkerState


def sample_metrics(*kinds):
    """Return metrics with a value for every gauge."""
    backlog = BacklogMonitor(sessions=None)  # type: ignore[arg-type]  # it takes no snapshot
    blocked = tuple(Blocked(kind, "newer_worker", 2, 1.0) for kind in (*kinds, "new", "newer"))
    queues = (QueueBacklog("default", 0, 0, 0.0, 0.0, paused=False),)
    batches, endpoints = OpenBatches(3, 1, 60.0), (EndpointTrouble("shop", "failing", 5.0),)
    waiting = Backlog(0, 0, 0, 0.0, 0.0, blocked, queues, batches, endpoints)
    backlog.last = Snapshot(waiting, [], time.monotonic())
    state = WorkerState(slots={"default": 16}, slots_taken=lambda: {"default": 3})
    state.pauses = (Pause("queue:reports", "ada", "month end", datetime.now(UTC), None, True),)  # noqa: FBT003 - a row
    return Metrics(kinds, "1.2.3", Process(16, state, LoopLag(), backlog))
