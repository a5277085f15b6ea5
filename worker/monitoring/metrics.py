"""The metrics: counted from events, or read from memory at a scrape. No job ids, no keys, no names.

Names follow Prometheus: one prefix, base units, `_total`. Which event counts what is in the event
table (`events.py`); the tables here say what each metric means. `docs/metrics.md` is generated
from them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    Info,
    Metric,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.monitoring.events import EVENTS, Count, Observe

if TYPE_CHECKING:
    from worker.monitoring.backlog import BacklogMonitor, Snapshot
    from worker.monitoring.loop_lag import LoopLag
    from worker.monitoring.state import WorkerState

# When a series began is of no use to anybody here, and doubles the page.
disable_created_metrics()  # type: ignore[no-untyped-call]  # it has no annotations

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PREFIX: Final = "teller_"

# From a job that waits for nobody to a night without workers.
WAIT_BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 28800)
RUN_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LATE_BUCKETS: Final = (0.1, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 28800, 86400)

OTHER_KIND: Final = "other"
"""Stands for every kind this code does not know: anything can arrive, and labels must not grow."""
NO_VALUE: Final = "none"
"""Stands for a field that is empty: a failure without an SQLSTATE."""


@dataclass(frozen=True, slots=True)
class Counted:
    """A metric that events count: a histogram where there are buckets, else a counter."""

    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def type(self) -> str:
        """Its type in Prometheus's words."""
        return "histogram" if self.buckets else "counter"


COUNTED: Final = {
    "jobs_finished": Counted("Jobs that became final here.", ("kind", "outcome")),
    "jobs_duplicates_absorbed": Counted(
        "Deliveries that found their job final already: work that was not done twice.", ("kind",)
    ),
    "jobs_conflicts": Counted(
        "Deliveries with another payload than the job of their id.", ("kind",)
    ),
    "jobs_retried": Counted(
        "Tries that failed and come again, by what went wrong and where they go: at once "
        "(in_place), to the queue (put_back), or there with an attempt spent (attempt).",
        ("kind", "reason", "sqlstate", "via"),
    ),
    "jobs_unrecorded": Counted("Failures that could not be recorded in PostgreSQL.", ("kind",)),
    "jobs_waits_for_environment": Counted(
        "Times a job was put back because the deployment lacks something, and the SQLSTATE.",
        ("kind", "blocked_by"),
    ),
    "jobs_waits_for_worker": Counted("Times a job was put back for a worker of another version."),
    "jobs_aborted": Counted("Jobs that a client aborted."),
    "jobs_queue_wait_seconds": Counted(
        "From when a job could run to when this worker took it.", ("kind",), WAIT_BUCKETS
    ),
    "jobs_run_seconds": Counted(
        "From when this worker took a job to its end, tries in place included.",
        ("kind", "outcome"),
        RUN_BUCKETS,
    ),
    "relay_sent": Counted("Jobs that the relay sent to Redis."),
    "relay_rebuilds": Counted("Times the queue was rebuilt because Redis had lost it."),
    "queue_quarantined": Counted("Members of the queue that cannot be jobs and are kept as dead."),
    "redis_losses": Counted("Times that Redis stopped answering."),
    "schedule_runs": Counted("Runs of schedules made here.", ("schedule",)),
    "schedule_missed": Counted("Runs of schedules that were dropped by policy.", ("schedule",)),
    "schedule_keys_taken": Counted(
        "Runs of schedules whose key somebody's job had already.", ("schedule",)
    ),
    "schedule_failures": Counted("Runs of schedules whose job was refused.", ("schedule",)),
    "schedule_late_seconds": Counted(
        "How long after its time a run of a schedule was made.", ("schedule",), LATE_BUCKETS
    ),
    "duty_failures": Counted("Rounds of background duties that failed.", ("duty",)),
}


Source = TypeVar("Source")


@dataclass(frozen=True, slots=True)
class Read(Generic[Source]):
    """A gauge: read from its source at the moment of a scrape."""

    meaning: str
    value: Callable[[Source], float]


PROCESS_GAUGES: Final[dict[str, Read["Process"]]] = {
    "worker_slots": Read("Jobs at a time in this process.", lambda own: own.slots),
    "jobs_running": Read("Jobs that run in this process.", lambda own: own.state.jobs_running),
    "event_loop_lag_seconds": Read(
        "The event loop's worst recent delay, the one that lasts included.",
        lambda own: own.loop_lag.worst_s(),
    ),
    "worker_ready": Read(
        "Whether this process can be counted on.",
        lambda own: not own.state.reasons_unready(),
    ),
    "worker_draining": Read(
        "Whether this process takes no more jobs.", lambda own: own.state.draining
    ),
    "postgresql_up": Read("Whether PostgreSQL answers.", lambda own: own.state.postgres_up),
    "redis_up": Read(
        "Whether jobs come from Redis; else: degraded.", lambda own: own.state.redis_up
    ),
    "quarantine_entries": Read(
        "Members of the queue that cannot be jobs and are not yet in the record.",
        lambda own: own.state.quarantined,
    ),
}

BACKLOG_GAUGES: Final[dict[str, Read["Snapshot"]]] = {
    "jobs_runnable": Read("Jobs that could run now, or do.", lambda last: last.backlog.runnable),
    "jobs_scheduled": Read(
        "Jobs whose time is still to come.", lambda last: last.backlog.scheduled
    ),
    "jobs_dead": Read("Dead jobs that somebody should look at.", lambda last: last.backlog.dead),
    "jobs_oldest_runnable_age_seconds": Read(
        "How long the oldest unfinished job could have run; 0 when none waits.",
        lambda last: last.backlog.oldest_runnable_age_s,
    ),
    "relay_lag_seconds": Read(
        "How long the oldest due job has waited to be sent to Redis.",
        lambda last: last.backlog.relay_lag_s,
    ),
    "batches_open": Read(
        "Batches that have not ended; counted up to 1,000.",
        lambda last: last.backlog.batches.open,
    ),
    "batches_held": Read(
        "Open batches that a dead member holds: retry or cancel it.",
        lambda last: last.backlog.batches.held,
    ),
    "batches_oldest_open_age_seconds": Read(
        "How long ago the oldest open batch was opened; 0 when there is none.",
        lambda last: last.backlog.batches.oldest_age_s,
    ),
    "workers": Read(
        "Processes that take jobs, by their heartbeats.",
        lambda last: sum(worker.works for worker in last.fleet),
    ),
}

BLOCKED: Final = (
    "jobs_blocked",
    "Jobs that wait for their environment (with its SQLSTATE) or for a newer worker.",
    ("kind", "cause"),
)
SERVER_TROUBLE: Final = (
    "server_trouble",
    "1 for what is wrong with a server at the moment, in a word; nothing where nothing is.",
    ("server", "trouble"),
)
PAUSED: Final = (
    "paused",
    "1 for each kind of job (`kind:…`) and queue (`queue:…`) that is paused.",
    ("target",),
)
ENDPOINT_TROUBLE: Final = (
    "webhook_endpoint_trouble_seconds",
    "How long deliveries to an endpoint have been `failing`, or `disabled`.",
    ("endpoint", "trouble"),
)
QUEUE_SLOTS: Final = ("queue_slots", "Jobs of a queue at a time in this process.", ("queue",))
QUEUE_TAKEN: Final = (
    "queue_slots_taken",
    "Slots of a queue in this process in which a job runs.",
    ("queue",),
)
QUEUE_RUNNABLE: Final = (
    "queue_jobs_runnable",
    "Jobs of a queue that could run now, or do.",
    ("queue",),
)
QUEUE_AGE: Final = (
    "queue_oldest_runnable_age_seconds",
    "How long the oldest unfinished job of a queue could have run.",
    ("queue",),
)
LABELLED: Final = (
    *(BLOCKED, SERVER_TROUBLE, PAUSED, ENDPOINT_TROUBLE),
    *(QUEUE_SLOTS, QUEUE_TAKEN, QUEUE_RUNNABLE, QUEUE_AGE),
)
BUILD: Final = ("build", "The code that runs.")
SNAPSHOT_AGE: Final = (
    "backlog_age_seconds",
    "How old the gauges from PostgreSQL are; they stand still while it does not answer.",
)


class Described(NamedTuple):
    """A metric as `docs/metrics.md` shows it."""

    name: str
    type: str
    labels: tuple[str, ...]
    meaning: str


def exposed_name(counted: str) -> str:
    """Return the name under which `/metrics` shows one of `COUNTED`."""
    return f"{PREFIX}{counted}" if COUNTED[counted].buckets else f"{PREFIX}{counted}_total"


def describe_metrics() -> list[Described]:
    """Return every metric of ours, by name."""
    counted = [
        Described(exposed_name(name), metric.type, metric.labels, metric.meaning)
        for name, metric in COUNTED.items()
    ]
    gauges = [(name, gauge.meaning) for name, gauge in PROCESS_GAUGES.items()]
    gauges += [(name, gauge.meaning) for name, gauge in BACKLOG_GAUGES.items()]
    read = [
        Described(PREFIX + name, "gauge", (), meaning) for name, meaning in [*gauges, SNAPSHOT_AGE]
    ]
    read += [
        Described(PREFIX + name, "gauge", labels, meaning) for name, meaning, labels in LABELLED
    ]
    build = Described(f"{PREFIX}{BUILD[0]}_info", "info", ("version",), BUILD[1])
    return sorted([*counted, *read, build])


class Process(NamedTuple):
    """What the gauges of one process are read from."""

    slots: int
    state: "WorkerState"
    loop_lag: "LoopLag"
    backlog: "BacklogMonitor"


class _Gauges(Collector):
    """Reads every gauge at a scrape; the backlog's only once there is a snapshot."""

    def __init__(self, process: Process, kinds: frozenset[str]) -> None:
        self._process = process
        self._kinds = kinds

    def describe(self) -> Iterator[Metric]:
        """Return no names: registering must not read a half-built process."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        yield from _read(PROCESS_GAUGES, self._process)
        state = self._process.state
        troubles = {"postgresql": state.postgres_trouble, "redis": state.redis_trouble}
        yield _labelled(
            SERVER_TROUBLE, {(name, word): 1 for name, word in troubles.items() if word}
        )
        yield _labelled(PAUSED, {(pause.target,): 1 for pause in state.pauses})
        yield _labelled(QUEUE_SLOTS, {(name,): slots for name, slots in state.slots.items()})
        yield _labelled(QUEUE_TAKEN, {(name,): n for name, n in state.slots_taken().items()})
        backlog = self._process.backlog
        if backlog.last is not None:
            yield from _read(BACKLOG_GAUGES, backlog.last)
            yield _labelled(BLOCKED, self._blocked(backlog.last))
            queues = backlog.last.backlog.queues
            yield _labelled(QUEUE_RUNNABLE, {(one.queue,): one.runnable for one in queues})
            yield _labelled(QUEUE_AGE, {(one.queue,): one.oldest_runnable_age_s for one in queues})
            yield _labelled(
                ENDPOINT_TROUBLE,
                {
                    (one.endpoint, one.trouble): one.since_s
                    for one in backlog.last.backlog.endpoints
                },
            )
            yield _gauge(*SNAPSHOT_AGE, backlog.age_s() or 0.0)

    def _blocked(self, last: "Snapshot") -> dict[tuple[str, ...], float]:
        counts: dict[tuple[str, ...], float] = {}
        for one in last.backlog.blocked:
            labels = (one.kind if one.kind in self._kinds else OTHER_KIND, one.cause)
            counts[labels] = counts.get(labels, 0) + one.jobs
        return counts


def _read(gauges: Mapping[str, Read[Source]], source: Source) -> Iterator[Metric]:
    return (_gauge(name, gauge.meaning, gauge.value(source)) for name, gauge in gauges.items())


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, meaning, value=float(value))


def _labelled(
    described: tuple[str, str, tuple[str, ...]], values: Mapping[tuple[str, ...], float]
) -> Metric:
    name, meaning, labels = described
    family = GaugeMetricFamily(PREFIX + name, meaning, labels=labels)
    for series, value in values.items():
        family.add_metric(series, float(value))
    return family


class Metrics:
    """One process's metrics. Subscribe `count` to the events."""

    def __init__(self, kinds: Iterable[str], version: str, process: Process) -> None:
        """Begin at zero.

        Args:
            kinds: of job that this process runs; every other one is counted as `other`.
            version: of the code that runs.
            process: what the gauges are read from.
        """
        self._kinds = frozenset(kinds)
        self.registry = CollectorRegistry(auto_describe=True)
        self._counted = {name: self._register(name, metric) for name, metric in COUNTED.items()}
        self._counts = {
            event: [self._counter_of(count) for count in spec.counts]
            for event, spec in EVENTS.items()
        }
        Info(PREFIX + BUILD[0], BUILD[1], registry=self.registry).info({"version": version})
        self.registry.register(_Gauges(process, self._kinds))
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._start_at_zero()

    def count(self, name: str, fields: dict[str, Any]) -> None:
        """Count what the event table says that this event counts."""
        for count in self._counts[name]:
            count(fields)

    def exposition(self) -> bytes:
        """Return everything in Prometheus's text format."""
        return generate_latest(self.registry)

    def _register(self, name: str, metric: Counted) -> Counter | Histogram:
        described = (PREFIX + name, metric.meaning, metric.labels)
        if metric.buckets:
            return Histogram(*described, registry=self.registry, buckets=metric.buckets)
        return Counter(*described, registry=self.registry)

    def _counter_of(self, count: Count | Observe) -> Callable[[dict[str, Any]], None]:
        """Return a function that applies one line of the event table to an event's fields."""
        series = self._series_of(count)
        if isinstance(count, Observe):
            value = count.value
            return lambda fields: series(fields).observe(max(0.0, fields[value]))
        amount = count.amount
        if amount is None:
            return lambda fields: series(fields).inc()
        return lambda fields: series(fields).inc(int(fields[amount]))

    def _series_of(self, count: Count | Observe) -> Callable[[dict[str, Any]], Any]:
        """Return a function that finds the series which an event's fields belong to."""
        metric = self._counted[count.metric]
        labels = COUNTED[count.metric].labels
        if not labels:
            return lambda _: metric
        # Looking a series up by its labels takes longer than counting it: each is kept.
        series = cache(metric.labels)
        values = [self._label_of(label, count) for label in labels]
        return lambda fields: series(*[value(fields) for value in values])

    def _label_of(self, label: str, count: Count | Observe) -> Callable[[dict[str, Any]], str]:
        """Return a function that finds one label's value in an event's fields."""
        if label in count.fixed:
            value = count.fixed[label]
            return lambda _: value
        field = count.labels[label]
        if label == "kind":
            return lambda fields: fields[field] if fields[field] in self._kinds else OTHER_KIND
        return lambda fields: fields[field] or NO_VALUE

    def _start_at_zero(self) -> None:
        """Show what alerts look at before it happens: a rate needs a first value."""
        for kind in self._kinds:
            for outcome in ("completed", "rejected", "dead", "cancelled"):
                self._counted["jobs_finished"].labels(kind, outcome)
            self._counted["jobs_duplicates_absorbed"].labels(kind)
            self._counted["jobs_queue_wait_seconds"].labels(kind)
