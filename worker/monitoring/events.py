"""The catalogue of events: code emits, subscribers log and count.

No event carries a payload, a result, a name or an address. Ids are fields, never message text.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from worker.monitoring.logs import write_event

Subscriber = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class EventSpec:
    """What an event means, how loud it is, what it carries, and where it is counted."""

    level: int
    meaning: str
    fields: tuple[str, ...] = ()
    metric: str | None = None


_JOB: Final = ("job_id", "kind")
_RUN: Final = (*_JOB, "try_number", "run_s")
_TROUBLE: Final = (*_JOB, "try_number", "trouble", "sqlstate")

CATALOGUE: Final = {
    "worker.started": EventSpec(
        logging.INFO, "The worker takes jobs from now on.", ("concurrency",), "teller_worker_slots"
    ),
    "worker.waits_for_database": EventSpec(
        logging.WARNING,
        "The worker cannot start before PostgreSQL answers; it asks again.",
        ("error", "sqlstate"),
    ),
    "worker.stopped": EventSpec(logging.INFO, "The worker has let go of everything."),
    "job.finished": EventSpec(
        logging.INFO,
        "A job reached a final state in this delivery.",
        (*_RUN, "state", "wait_s"),
        "teller_jobs_finished_total",
    ),
    "job.duplicate": EventSpec(
        logging.INFO,
        "A delivery found its job finished already.",
        (*_RUN, "state"),
        "teller_jobs_duplicates_absorbed_total",
    ),
    "job.conflict": EventSpec(
        logging.WARNING,
        "A delivery carried another payload than the job of the same id.",
        _RUN,
        "teller_jobs_conflicts_total",
    ),
    "job.run_again": EventSpec(
        logging.INFO,
        "A try was rolled back and runs again at once.",
        _TROUBLE,
        "teller_jobs_retried_total",
    ),
    "job.put_back": EventSpec(
        logging.INFO,
        "A job went back to the queue, spending no attempt.",
        _TROUBLE,
        "teller_jobs_retried_total",
    ),
    "job.failed": EventSpec(
        logging.WARNING,
        "A try failed and spent an attempt.",
        _TROUBLE,
        "teller_jobs_retried_total",
    ),
    "job.dead": EventSpec(
        logging.ERROR,
        "A job is out of attempts, or cannot be run at all.",
        _RUN,
        "teller_jobs_finished_total",
    ),
    "job.unrecorded": EventSpec(
        logging.WARNING,
        "A failure could not be recorded; the job runs again.",
        _TROUBLE,
        "teller_jobs_unrecorded_total",
    ),
    "job.aborted": EventSpec(
        logging.INFO,
        "A client aborted a job; the record says cancelled.",
        ("job_id",),
        "teller_jobs_aborted_total",
    ),
    "job.abort_unrecorded": EventSpec(
        logging.WARNING,
        "A client aborted a job, and the record could not be told.",
        ("error",),
    ),
    "job.waits_for_worker": EventSpec(
        logging.WARNING,
        "A job waits for a worker whose code knows its kind and payload.",
        (*_JOB, "error"),
        "teller_jobs_waits_for_worker_total",
    ),
    "redis.lost": EventSpec(
        logging.WARNING,
        "Redis is away: jobs come from the record until it is back.",
        metric="teller_redis_losses_total",
    ),
    "redis.back": EventSpec(
        logging.INFO,
        "Redis is back: jobs come from its queue again.",
        metric="teller_redis_up",
    ),
    "relay.sent": EventSpec(
        logging.INFO,
        "Jobs went to Redis that it did not know.",
        ("jobs", "rebuilt"),
        "teller_relay_sent_total",
    ),
    "schedule.made": EventSpec(
        logging.INFO,
        "A schedule's time came, and its job was accepted.",
        ("schedule", "kind", "fire_at", "job_id", "late_s"),
        "teller_schedule_runs_total",
    ),
    "schedule.missed": EventSpec(
        logging.WARNING,
        "Runs came while no worker was there, and were dropped by policy.",
        ("schedule", "runs"),
        "teller_schedule_missed_total",
    ),
    "schedule.failed": EventSpec(
        logging.ERROR,
        "A schedule's job could not be accepted; it is tried again.",
        ("schedule", "error", "sqlstate"),
        "teller_schedule_failures_total",
    ),
    "duty.failed": EventSpec(
        logging.WARNING,
        "A round of a background duty failed; it goes on.",
        ("duty", "error", "sqlstate", "failures"),
        "teller_duty_failures_total",
    ),
    "health.unavailable": EventSpec(
        logging.WARNING,
        "The health server has no address: set TELLER_HEALTH_PORT to a free one. Jobs run.",
        ("address", "error"),
    ),
}


class Events:
    """Hands every event to every subscriber; an event that is not in the catalogue is a bug."""

    def __init__(self, *subscribers: Subscriber) -> None:
        self._subscribers = list(subscribers)

    def subscribe(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it must neither block nor raise."""
        self._subscribers.append(subscriber)

    def emit(self, name: str, **fields: Any) -> None:  # noqa: ANN401 - fields differ by event
        """Tell everyone that something happened."""
        for subscriber in self._subscribers:
            subscriber(name, fields)


def log_events(name: str, fields: dict[str, Any]) -> None:
    """Write one structured line for an event, at the catalogue's level."""
    write_event(CATALOGUE[name].level, name, fields)
