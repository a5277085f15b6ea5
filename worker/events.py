"""The catalogue of events: code emits, subscribers log and count.

No event carries a payload, a result, a name or an address. Ids are fields, never message text.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import structlog

Subscriber = Callable[[str, dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class EventSpec:
    """What an event means and how loud it is."""

    level: int
    meaning: str


CATALOGUE: Final = {
    "worker.started": EventSpec(logging.INFO, "The worker takes jobs from now on."),
    "worker.stopped": EventSpec(logging.INFO, "The worker has let go of everything."),
    "job.finished": EventSpec(logging.INFO, "A job reached a final state in this delivery."),
    "job.duplicate": EventSpec(logging.INFO, "A delivery found its job finished already."),
    "job.conflict": EventSpec(
        logging.WARNING, "A delivery carried another payload than the job of the same id."
    ),
    "job.run_again": EventSpec(logging.INFO, "A try was rolled back and runs again at once."),
    "job.put_back": EventSpec(logging.INFO, "A job went back to the queue, spending no attempt."),
    "job.failed": EventSpec(logging.WARNING, "A try failed and spent an attempt."),
    "job.dead": EventSpec(logging.ERROR, "A job is out of attempts, or cannot be run at all."),
    "job.unrecorded": EventSpec(
        logging.WARNING, "A failure could not be recorded; the job runs again."
    ),
    "job.aborted": EventSpec(logging.INFO, "A client aborted a job; the record says cancelled."),
    "job.abort_unrecorded": EventSpec(
        logging.WARNING, "A client aborted a job, and the record could not be told."
    ),
    "redis.lost": EventSpec(
        logging.WARNING, "Redis is away: jobs come from the record until it is back."
    ),
    "redis.back": EventSpec(logging.INFO, "Redis is back: jobs come from its queue again."),
    "relay.sent": EventSpec(logging.INFO, "Jobs went to Redis that it did not know."),
    "duty.failed": EventSpec(logging.WARNING, "A round of a background duty failed; it goes on."),
    "job.waits_for_worker": EventSpec(
        logging.WARNING, "A job waits for a worker whose code knows its kind and payload."
    ),
    "schedule.made": EventSpec(logging.INFO, "A schedule's time came, and its job was accepted."),
    "schedule.missed": EventSpec(
        logging.WARNING, "Runs came while no worker was there, and were dropped by policy."
    ),
    "schedule.failed": EventSpec(
        logging.ERROR, "A schedule's job could not be accepted; it is tried again."
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
    structlog.get_logger().log(CATALOGUE[name].level, name, **fields)
