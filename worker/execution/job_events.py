"""Events about one delivery: ids, times and states; never payloads or results."""

import time
from typing import TYPE_CHECKING

from worker.execution.outcome import Conflict, Finished, Later, Outcome

if TYPE_CHECKING:
    from db.errors import Diagnosis
    from worker.execution.delivery import Delivery
    from worker.monitoring.events import Events


def emit_outcome(events: "Events", delivery: "Delivery", outcome: Outcome) -> Outcome:
    """Emit what became of a delivery, and return the outcome unchanged."""
    about = {
        "job_id": str(delivery.job.id),
        "kind": delivery.job.kind,
        "run_s": round(time.monotonic() - delivery.started_at, 6),
        "try_number": delivery.try_number,
    }
    match outcome:
        case Finished(replayed=True, state=state):
            events.emit("job.duplicate", state=state, **about)
        case Finished(state="dead"):
            events.emit("job.dead", **about)
        case Finished(state=state):
            events.emit("job.finished", state=state, wait_s=delivery.wait_s, **about)
        case Conflict():
            events.emit("job.conflict", **about)
        case Later():
            pass
    return outcome


def emit_slice(events: "Events", delivery: "Delivery") -> None:
    """Emit that a part of a job took effect."""
    events.emit(
        "job.continued",
        job_id=str(delivery.job.id),
        kind=delivery.job.kind,
        slices=delivery.job.slices + 1,
        run_s=round(time.monotonic() - delivery.started_at, 6),
    )


def emit_retry(events: "Events", event: str, delivery: "Delivery", diagnosis: "Diagnosis") -> None:
    """Emit that a try went wrong, how, and by the event's name what follows."""
    events.emit(
        event,
        job_id=str(delivery.job.id),
        kind=delivery.job.kind,
        try_number=delivery.try_number,
        trouble=diagnosis.trouble.value,
        sqlstate=diagnosis.sqlstate,
    )


def emit_blocked(events: "Events", event: str, delivery: "Delivery", **why: str) -> None:
    """Emit that a job waits for something that no worker here can change."""
    events.emit(event, job_id=str(delivery.job.id), kind=delivery.job.kind, **why)
