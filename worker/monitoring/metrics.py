"""The metrics: counted from events, read from memory at a scrape. No job ids, no keys, no names.

Names follow Prometheus: one prefix, base units, `_total`. `docs/metrics.md` is generated from here.
"""

from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from worker.monitoring.figures import Figures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.monitoring.backlog import Census
    from worker.monitoring.loop_lag import Pulse
    from worker.monitoring.state import Condition

# When a series began is of no use to anybody here, and doubles the page.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

# From a job that waits for nobody to a night without workers.
WAIT_BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800)
RUN_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LATE_BUCKETS: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 28800, 86400)

OTHER_KIND: Final = "other"
"""Stands for every kind this code does not know: anything can arrive, and labels must not grow."""


class Metrics:
    """One process's metrics. Subscribe `count` to the events."""

    def __init__(  # noqa: PLR0913 - everything a scrape shows, by name
        self,
        kinds: "Iterable[str]",
        *,
        version: str,
        slots: int,
        condition: "Condition",
        pulse: "Pulse",
        census: "Census",
    ) -> None:
        self._kinds = frozenset(kinds)
        self.registry = CollectorRegistry(auto_describe=True)
        self._define()
        self._build.info({"version": version})
        self._slots.set(slots)
        self.registry.register(Figures(condition, pulse, census))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._of_jobs: dict[tuple[str, str], tuple[Counter, Histogram, Histogram]] = {}
        self._start_at_zero()

    def _define(self) -> None:
        self._finished = self._counter(
            "jobs_finished", "Jobs that became final here.", "kind", "outcome"
        )
        self._duplicates = self._counter(
            "jobs_duplicates_absorbed",
            "Deliveries that found their job final already: work that was not done twice.",
            "kind",
        )
        self._conflicts = self._counter(
            "jobs_conflicts", "Deliveries with another payload than the job of their id.", "kind"
        )
        self._retried = self._counter(
            "jobs_retried",
            "Tries that failed and come again, by what went wrong and where they go: at once "
            "(in_place), to the queue (put_back), or there with an attempt spent (attempt).",
            *("kind", "reason", "sqlstate", "via"),
        )
        self._unrecorded = self._counter(
            "jobs_unrecorded", "Failures that PostgreSQL could not be told.", "kind"
        )
        self._waiting = self._counter(
            "jobs_waits_for_worker", "Times a job was put back for a worker of another version."
        )
        self._aborted = self._counter("jobs_aborted", "Jobs that a client aborted.")
        self._wait = self._histogram(
            "jobs_queue_wait_seconds",
            "From when a job could run to when this worker took it.",
            WAIT_BUCKETS,
            "kind",
        )
        self._run = self._histogram(
            "jobs_run_seconds",
            "From when this worker took a job to its end, tries in place included.",
            RUN_BUCKETS,
            *("kind", "outcome"),
        )
        self._sent = self._counter("relay_sent", "Jobs that the relay sent to Redis.")
        self._rebuilt = self._counter(
            "relay_rebuilds", "Times the queue was rebuilt because Redis had lost it."
        )
        self._redis_lost = self._counter("redis_losses", "Times that Redis went away.")
        self._made = self._counter("schedule_runs", "Runs of schedules made here.", "schedule")
        self._missed = self._counter(
            "schedule_missed", "Runs of schedules that were dropped by policy.", "schedule"
        )
        self._schedule_failed = self._counter(
            "schedule_failures", "Runs of schedules whose job was refused.", "schedule"
        )
        self._late = self._histogram(
            "schedule_late_seconds",
            "How long after its time a run of a schedule was made.",
            LATE_BUCKETS,
            "schedule",
        )
        self._duty_failed = self._counter(
            "duty_failures", "Rounds of background duties that failed.", "duty"
        )
        self._slots = Gauge(
            "teller_worker_slots", "Jobs at a time in this process.", registry=self.registry
        )
        self._build = Info("teller_build", "The code that runs.", registry=self.registry)

    def count(self, name: str, fields: dict[str, Any]) -> None:  # noqa: C901, PLR0912 - a table
        """Count an event."""
        match name:
            case "job.finished":
                finished, wait, run = self._of_job(self._kind(fields), fields["state"])
                finished.inc()
                wait.observe(fields["wait_s"])
                run.observe(fields["run_s"])
            case "job.dead":
                kind = self._kind(fields)
                self._finished.labels(kind, "dead").inc()
                self._run.labels(kind, "dead").observe(fields["run_s"])
            case "job.duplicate":
                self._duplicates.labels(self._kind(fields)).inc()
            case "job.conflict":
                self._conflicts.labels(self._kind(fields)).inc()
            case "job.run_again" | "job.put_back" | "job.failed":
                self._retried.labels(
                    self._kind(fields),
                    fields["trouble"],
                    fields["sqlstate"] or "none",
                    VIA[name],
                ).inc()
            case "job.unrecorded":
                self._unrecorded.labels(self._kind(fields)).inc()
            case "job.waits_for_worker":
                self._waiting.inc()
            case "job.aborted":
                self._aborted.inc()
            case "relay.sent":
                self._sent.inc(fields["jobs"])
                self._rebuilt.inc(int(fields["rebuilt"]))
            case "redis.lost":
                self._redis_lost.inc()
            case "schedule.made":
                self._made.labels(fields["schedule"]).inc()
                self._late.labels(fields["schedule"]).observe(max(0.0, fields["late_s"]))
            case "schedule.missed":
                self._missed.labels(fields["schedule"]).inc(fields["runs"])
            case "schedule.failed":
                self._schedule_failed.labels(fields["schedule"]).inc()
            case "duty.failed":
                self._duty_failed.labels(fields["duty"]).inc()

    def _of_job(self, kind: str, outcome: str) -> tuple[Counter, Histogram, Histogram]:
        """Return the three series of a job that ended, looked up once: they count on every job."""
        series = self._of_jobs.get((kind, outcome))
        if series is None:
            series = self._of_jobs[kind, outcome] = (
                self._finished.labels(kind, outcome),
                self._wait.labels(kind),
                self._run.labels(kind, outcome),
            )
        return series

    def exposition(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def _kind(self, fields: dict[str, Any]) -> str:
        kind: str = fields["kind"]
        return kind if kind in self._kinds else OTHER_KIND

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"teller_{name}", meaning, labels, registry=self.registry)

    def _histogram(
        self, name: str, meaning: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(f"teller_{name}", meaning, labels, registry=self.registry, buckets=buckets)

    def _start_at_zero(self) -> None:
        """Show what alerts look at before it happens: a rate needs a first value."""
        for kind in self._kinds:
            for outcome in ("completed", "rejected", "dead", "cancelled"):
                self._finished.labels(kind, outcome)
            self._duplicates.labels(kind)
            self._wait.labels(kind)


VIA: Final = {"job.run_again": "in_place", "job.put_back": "put_back", "job.failed": "attempt"}
"""Where a failed try goes, by the event that tells of it."""
