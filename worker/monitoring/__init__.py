"""What a worker process shows of itself: events, logs, metrics, spans, and its health over HTTP.

Nothing here imports what it watches: `worker.app` passes that in. The event loop keeps the state of
the process in memory (`state.py`, `loop_lag.py`, `backlog.py`), and the health server answers from
there in a thread of its own (`http/`): also while the loop is blocked, and no request reaches a
database.
"""

from worker.monitoring.health import Health

__all__ = ["Health"]
