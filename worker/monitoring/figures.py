"""The figures that are read at the moment of a scrape, not counted."""

from typing import TYPE_CHECKING

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client import Metric

    from worker.monitoring.backlog import Census
    from worker.monitoring.loop_lag import Pulse
    from worker.monitoring.state import Condition


class Figures(Collector):
    """Reads the state of the process, and the last census, which is the same for all processes."""

    def __init__(self, condition: "Condition", pulse: "Pulse", census: "Census") -> None:
        self._condition = condition
        self._pulse = pulse
        self._census = census

    def describe(self) -> "Iterator[Metric]":
        """Return the names alone: registering must not read a half-built process."""
        return iter(())

    def collect(self) -> "Iterator[Metric]":
        """Read everything once."""
        yield from self._of_the_process()
        yield from self._of_the_record()

    def _of_the_process(self) -> "Iterator[Metric]":
        condition = self._condition
        yield _gauge("jobs_running", "Jobs that run in this process.", condition.jobs_running)
        yield _gauge(
            "event_loop_lag_seconds",
            "The event loop's worst delay of late, the one that lasts included.",
            self._pulse.lag_s(),
        )
        yield _gauge(
            "worker_ready",
            "Whether this process can be counted on.",
            not condition.reasons_unready(),
        )
        yield _gauge(
            "worker_draining", "Whether this process takes no more jobs.", condition.draining
        )
        yield _gauge("postgresql_up", "Whether PostgreSQL answers.", condition.postgres_up)
        yield _gauge("redis_up", "Whether Redis answers; without it: degraded.", condition.redis_up)

    def _of_the_record(self) -> "Iterator[Metric]":
        count = self._census.last
        if count is None:
            return
        waiting = count.backlog
        yield _gauge("jobs_runnable", "Jobs that could run now, or do.", waiting.runnable)
        yield _gauge("jobs_scheduled", "Jobs whose time is still to come.", waiting.scheduled)
        yield _gauge("jobs_dead", "Dead jobs that somebody should look at.", waiting.dead)
        yield _gauge(
            "jobs_oldest_runnable_age_seconds",
            "How long the oldest unfinished job could have run; 0 when none waits.",
            waiting.oldest_runnable_age_s,
        )
        yield _gauge(
            "relay_lag_seconds",
            "How long the oldest due job has waited to be sent to Redis.",
            waiting.relay_lag_s,
        )
        yield _gauge(
            "workers",
            "Processes that take jobs, by their heartbeats.",
            sum(worker.works for worker in count.fleet),
        )
        yield _gauge(
            "census_age_seconds",
            "How old the figures of the record are; they stand still while PostgreSQL is away.",
            self._census.age_s() or 0.0,
        )


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"teller_{name}", meaning, value=float(value))
