"""The pages of a worker process, each made from memory."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from worker.monitoring.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from worker.monitoring.backlog import BacklogMonitor
    from worker.monitoring.loop_lag import LoopLag
    from worker.monitoring.metrics import Metrics
    from worker.monitoring.state import WorkerState

OK: Final = 200
UNAVAILABLE: Final = 503
PAUSED: Final = "paused"
"""What a pause blocks is told with who and why."""
SNAPSHOT_FRESH_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Page:
    """An answer: a status and a body."""

    status: int
    body: bytes
    content_type: str = "application/json"


def json_page(status: int, content: dict[str, Any]) -> Page:
    """Return a page of JSON."""
    # asyncpg has a UUID of its own, which only `str` knows.
    return Page(status, orjson.dumps(content, default=str, option=orjson.OPT_APPEND_NEWLINE))


@dataclass(frozen=True, slots=True)
class Pages:
    """The site of one process."""

    state: "WorkerState"
    loop_lag: "LoopLag"
    backlog: "BacklogMonitor"
    metrics: "Metrics"
    identity: dict[str, Any]
    blocked_after_s: float

    async def find(self, path: str) -> Page | None:
        """Return the page at a path, or None."""
        match path:
            case "/livez":
                return self.livez()
            case "/readyz":
                return self.readyz()
            case "/metrics":
                return Page(OK, self.metrics.exposition(), CONTENT_TYPE)
            case "/status":
                return json_page(OK, self.status())
        return None

    def livez(self) -> Page:
        """Return 200 while the event loop runs.

        It ignores PostgreSQL and Redis: restarting this process would not bring them back.
        """
        blocked_s = round(self.loop_lag.blocked_s(), 3)
        if blocked_s > self.blocked_after_s:
            return json_page(UNAVAILABLE, {"live": False, "event_loop_blocked_s": blocked_s})
        return json_page(OK, {"live": True})

    def readyz(self) -> Page:
        """Return 200 while this process is ready, with its mode, else 503 with the reasons."""
        reasons = self.state.reasons_unready()
        if self.loop_lag.blocked_s() > self.blocked_after_s:
            reasons.append("event loop blocked")
        ready = not reasons
        content = {
            "ready": ready,
            "mode": self.state.mode,
            "reasons": reasons,
            "warnings": self._warnings(),
        }
        return json_page(OK if ready else UNAVAILABLE, content)

    def status(self) -> dict[str, Any]:
        """Return everything known: about this process, the backlog and the fleet."""
        state, snapshot, age_s = self.state, self.backlog.last, self.backlog.age_s()
        return {
            "service": self._service(),
            "process": {
                **self.identity,
                "ready": not state.reasons_unready(),
                "reasons": state.reasons_unready(),
                "mode": state.mode,
                "draining": state.draining,
                "jobs_running": state.jobs_running,
                "queues": state.queues(),
                "postgresql_up": state.postgres_up,
                "postgresql_trouble": state.postgres_trouble,
                "redis_up": state.redis_up,
                "redis_trouble": state.redis_trouble,
                "warnings": self._warnings(),
                "event_loop_lag_s": round(self.loop_lag.worst_s(), 3),
            },
            "pauses": [asdict(pause) for pause in state.pauses],
            "counted_s_ago": None if age_s is None else round(age_s, 1),
            "backlog": None if snapshot is None else asdict(snapshot.backlog),
            "fleet": None if snapshot is None else [asdict(worker) for worker in snapshot.fleet],
        }

    def _warnings(self) -> list[str]:
        """Return what somebody should mend: here, and for kinds of job that are blocked."""
        snapshot = self.backlog.last
        if snapshot is None:
            return self.state.warnings()
        backlog = snapshot.backlog
        served = {queue for worker in snapshot.fleet if worker.works for queue in worker.queues}
        return [
            *self.state.warnings(),
            *(
                f"jobs of the queue {one.queue} wait, and no worker serves it"
                for one in backlog.queues
                if one.runnable and one.queue not in served
            ),
            *(
                f"{one.kind} is blocked by {one.cause}"
                for one in backlog.blocked
                if one.cause != PAUSED
            ),
            *(f"the webhook endpoint {one.endpoint} is {one.trouble}" for one in backlog.endpoints),
            *(
                [f"{held} batches are held by a dead member"]
                if (held := backlog.batches.held)
                else []
            ),
        ]

    def _service(self) -> str:
        """Return the service's state in a word."""
        snapshot, age_s = self.backlog.last, self.backlog.age_s()
        if not self.state.postgres_up or snapshot is None or (age_s or 0.0) > SNAPSHOT_FRESH_S:
            return "unknown"
        working = [worker for worker in snapshot.fleet if worker.works]
        if not working:
            return "no_workers"
        if not self.state.redis_up or any(worker.mode != "normal" for worker in working):
            return "degraded"
        return "healthy"
