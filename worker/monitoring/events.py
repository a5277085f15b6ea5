"""The event table: every event that the worker emits, what its line holds, and what it counts.

Code emits events; subscribers log, count and trace them. No event carries a payload, a result, a
name or an address, and an id is a field, never part of a message.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from logging import ERROR, INFO, WARNING
from typing import Any, Final

from worker.monitoring.logs import write_event

Subscriber = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Count:
    """Adds to a counter of `metrics.py`."""

    metric: str
    labels: Mapping[str, str] = field(default_factory=dict)
    """The field of the event that each label's value is in."""
    fixed: Mapping[str, str] = field(default_factory=dict)
    """The labels that are the same for every event of this name, and their values."""
    amount: str | None = None
    """The field that says how much to add; None adds one."""


@dataclass(frozen=True, slots=True)
class Observe:
    """Puts a value into a histogram of `metrics.py`."""

    metric: str
    value: str
    """The field that is observed, in the metric's unit."""
    labels: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """One event: its level in the log, its meaning, its fields, and what it counts."""

    level: int
    meaning: str
    fields: tuple[str, ...] = ()
    counts: tuple[Count | Observe, ...] = ()


_JOB: Final = ("job_id", "kind")
_RUN: Final = (*_JOB, "try_number", "run_s")
_TROUBLE: Final = (*_JOB, "try_number", "trouble", "sqlstate")

_BY_KIND: Final = {"kind": "kind"}
_BY_OUTCOME: Final = {"kind": "kind", "outcome": "state"}
_BY_TROUBLE: Final = {"kind": "kind", "reason": "trouble", "sqlstate": "sqlstate"}
_BY_SCHEDULE: Final = {"schedule": "schedule"}
_DEAD: Final = {"outcome": "dead"}

EVENTS: Final = {
    "worker.started": Event(INFO, "The worker takes jobs from now on.", ("concurrency",)),
    "worker.waits_for_database": Event(
        WARNING,
        "PostgreSQL does not answer, so the worker cannot start; it tries again.",
        ("error", "sqlstate"),
    ),
    "worker.stopped": Event(INFO, "The worker has closed its connections and ends."),
    "worker.crashed": Event(
        ERROR,
        "A worker process ended though nobody stopped it; the supervisor starts another.",
        ("slot", "exit_code", "restart_in_s"),
    ),
    "worker.other_queues": Event(
        WARNING,
        "Workers of this database look for the same queues under other keys: jobs go to either.",
        ("queue", "others"),
    ),
    "pause.began": Event(
        WARNING,
        "Jobs of a kind (`kind:…`) or a queue (`queue:…`) do not begin any more.",
        ("target", "by", "reason"),
    ),
    "pause.ended": Event(INFO, "They begin again.", ("target",)),
    "job.finished": Event(
        INFO,
        "A job reached a final state in this delivery.",
        (*_RUN, "state", "wait_s"),
        counts=(
            Count("jobs_finished", _BY_OUTCOME),
            Observe("jobs_queue_wait_seconds", "wait_s", _BY_KIND),
            Observe("jobs_run_seconds", "run_s", _BY_OUTCOME),
        ),
    ),
    "job.duplicate": Event(
        INFO,
        "A delivery found its job finished already.",
        (*_RUN, "state"),
        counts=(Count("jobs_duplicates_absorbed", _BY_KIND),),
    ),
    "job.conflict": Event(
        WARNING,
        "A delivery carried another payload than the job of the same id.",
        _RUN,
        counts=(Count("jobs_conflicts", _BY_KIND),),
    ),
    "job.run_again": Event(
        INFO,
        "A try was rolled back and runs again at once.",
        _TROUBLE,
        counts=(Count("jobs_retried", _BY_TROUBLE, {"via": "in_place"}),),
    ),
    "job.continued": Event(
        INFO,
        "A slice of a job took effect, and the job goes on.",
        (*_JOB, "slices", "run_s"),
    ),
    "job.on_dead_failed": Event(
        ERROR,
        "A job is dead, and the job that was to follow its death could not be enqueued.",
        (*_JOB, "error"),
    ),
    "job.put_back": Event(
        INFO,
        "A job went back to the queue, spending no attempt.",
        _TROUBLE,
        counts=(Count("jobs_retried", _BY_TROUBLE, {"via": "put_back"}),),
    ),
    "job.failed": Event(
        WARNING,
        "A try failed and spent an attempt.",
        _TROUBLE,
        counts=(Count("jobs_retried", _BY_TROUBLE, {"via": "attempt"}),),
    ),
    "job.dead": Event(
        ERROR,
        "A job is out of attempts, or cannot be run at all.",
        _RUN,
        counts=(
            Count("jobs_finished", _BY_KIND, _DEAD),
            Observe("jobs_run_seconds", "run_s", _BY_KIND, _DEAD),
        ),
    ),
    "job.unrecorded": Event(
        WARNING,
        "A failure could not be recorded; the job runs again.",
        _TROUBLE,
        counts=(Count("jobs_unrecorded", _BY_KIND),),
    ),
    "job.aborted": Event(
        INFO,
        "A client aborted a job, and its row says cancelled.",
        ("job_id",),
        counts=(Count("jobs_aborted"),),
    ),
    "job.abort_unrecorded": Event(
        WARNING,
        "A client aborted a job, and its row could not be changed.",
        ("error",),
    ),
    "job.waits_for_worker": Event(
        WARNING,
        "A job waits for a worker whose code knows its kind and payload.",
        (*_JOB, "error"),
        counts=(Count("jobs_waits_for_worker"),),
    ),
    "job.blocked": Event(
        INFO,
        "A job waits for what the deployment lacks: a grant, a table, room on the disk.",
        (*_JOB, "blocked_by"),
        counts=(Count("jobs_waits_for_environment", {"kind": "kind", "blocked_by": "blocked_by"}),),
    ),
    "kind.blocked": Event(
        WARNING,
        "Jobs of this kind wait for what the deployment lacks; the SQLSTATE says what.",
        ("kind", "blocked_by"),
    ),
    "kind.unblocked": Event(
        INFO,
        "A job of this kind has completed again.",
        ("kind",),
    ),
    "redis.lost": Event(
        WARNING,
        "Redis does not answer: jobs are claimed from PostgreSQL until it does.",
        counts=(Count("redis_losses"),),
    ),
    "redis.refuses": Event(
        WARNING,
        "Redis answers, and takes no new jobs: those are claimed from PostgreSQL until it does.",
        counts=(Count("redis_losses"),),
    ),
    "redis.back": Event(INFO, "Redis takes jobs again: they come from its queue."),
    "redis.trouble": Event(
        WARNING,
        "Redis is away, refuses, is read-only or full, or throws keys away (evicts).",
        ("trouble",),
    ),
    "queue.spoiled": Event(
        ERROR,
        "Another type of key stood in the queue's place: it is moved aside, the queue is rebuilt.",
        ("moved_to",),
    ),
    "queue.quarantined": Event(
        ERROR,
        "A member of the queue cannot be a job: it is kept as a dead job of kind `malformed`.",
        ("job_id", "error"),
        counts=(Count("queue_quarantined"),),
    ),
    "relay.sent": Event(
        INFO,
        "The relay sent jobs to Redis that were missing there.",
        ("jobs", "rebuilt"),
        counts=(
            Count("relay_sent", amount="jobs"),
            Count("relay_rebuilds", amount="rebuilt"),
        ),
    ),
    "batch.fired": Event(
        INFO,
        "All jobs of a batch are over, and the job that follows was accepted.",
        ("batch_id", "job_id", "members", "dead", "open_s"),
    ),
    "schedule.made": Event(
        INFO,
        "A schedule's time came, and its job was accepted.",
        ("schedule", "kind", "fire_at", "job_id", "late_s"),
        counts=(
            Count("schedule_runs", _BY_SCHEDULE),
            Observe("schedule_late_seconds", "late_s", _BY_SCHEDULE),
        ),
    ),
    "schedule.key_taken": Event(
        WARNING,
        "Somebody's job has the key of a run, so the run's own job was accepted without a key.",
        ("schedule", "kind", "fire_at", "job_id"),
        counts=(Count("schedule_keys_taken", _BY_SCHEDULE),),
    ),
    "schedule.missed": Event(
        WARNING,
        "Runs came due while no worker ran, and were dropped by policy.",
        ("schedule", "runs"),
        counts=(Count("schedule_missed", _BY_SCHEDULE, amount="runs"),),
    ),
    "schedule.failed": Event(
        ERROR,
        "A schedule's job could not be accepted; it is tried again.",
        ("schedule", "error", "sqlstate"),
        counts=(Count("schedule_failures", _BY_SCHEDULE),),
    ),
    "duty.failed": Event(
        WARNING,
        "A round of a background duty failed; the next round tries again.",
        ("duty", "error", "sqlstate", "failures"),
        counts=(Count("duty_failures", {"duty": "duty"}),),
    ),
    "health.unavailable": Event(
        WARNING,
        "The health server has no address: set TELLER_HEALTH_PORT to a free one. Jobs run.",
        ("address", "error"),
    ),
    "health.request_failed": Event(
        ERROR,
        "A page of the health server failed; its request got no answer, others do.",
        ("error",),
    ),
}


class Events:
    """Passes every event to every subscriber; an event that is not in the table is a bug."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it must neither block nor raise, and may be called from any thread."""
        self._subscribers.append(subscriber)

    def emit(self, name: str, **fields: Any) -> None:  # noqa: ANN401 - fields differ by event
        """Pass an event to every subscriber.

        Args:
            name: its key in `EVENTS`.
            fields: the values of the fields that the table lists for it.
        """
        for subscriber in self._subscribers:
            subscriber(name, fields)


def log_events(name: str, fields: dict[str, Any]) -> None:
    """Write one structured line for an event, at the level that the table gives it."""
    write_event(EVENTS[name].level, name, fields)
