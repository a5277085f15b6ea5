"""The pages of a worker process, each made from memory."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from worker.monitoring.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from worker.monitoring.backlog import Census
    from worker.monitoring.loop_lag import Pulse
    from worker.monitoring.metrics import Metrics
    from worker.monitoring.state import Condition

OK: Final = 200
UNAVAILABLE: Final = 503
COUNT_FRESH_S: Final = 30.0


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
    """What one process answers."""

    condition: "Condition"
    pulse: "Pulse"
    census: "Census"
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
        """Tell whether this process turns. No server has a say in it: they are not its fault."""
        silence_s = round(self.pulse.silence_s(), 3)
        if silence_s > self.blocked_after_s:
            return json_page(UNAVAILABLE, {"live": False, "event_loop_blocked_s": silence_s})
        return json_page(OK, {"live": True})

    def readyz(self) -> Page:
        """Tell whether this process can be counted on, and in which mode."""
        reasons = self.condition.reasons_unready()
        if self.pulse.silence_s() > self.blocked_after_s:
            reasons.append("event loop blocked")
        ready = not reasons
        content = {"ready": ready, "mode": self.condition.mode, "reasons": reasons}
        return json_page(OK if ready else UNAVAILABLE, content)

    def status(self) -> dict[str, Any]:
        """Return all that this process knows, of itself, the backlog and the fleet."""
        condition, count, age_s = self.condition, self.census.last, self.census.age_s()
        return {
            "service": self._verdict(),
            "process": {
                **self.identity,
                "ready": not condition.reasons_unready(),
                "reasons": condition.reasons_unready(),
                "mode": condition.mode,
                "draining": condition.draining,
                "jobs_running": condition.jobs_running,
                "postgresql_up": condition.postgres_up,
                "redis_up": condition.redis_up,
                "event_loop_lag_s": round(self.pulse.lag_s(), 3),
            },
            "counted_s_ago": None if age_s is None else round(age_s, 1),
            "backlog": None if count is None else asdict(count.backlog),
            "fleet": None if count is None else [asdict(worker) for worker in count.fleet],
        }

    def _verdict(self) -> str:
        """Return the service's state in a word."""
        count, age_s = self.census.last, self.census.age_s()
        if not self.condition.postgres_up or count is None or (age_s or 0.0) > COUNT_FRESH_S:
            return "unknown"
        working = [worker for worker in count.fleet if worker.works]
        if not working:
            return "no_workers"
        if not self.condition.redis_up or any(worker.mode != "normal" for worker in working):
            return "degraded"
        return "healthy"
