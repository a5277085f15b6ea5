"""One job: its life from whoever asked for it to its effect, and why it stands where it stands."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from starlette.exceptions import HTTPException

from db.desk import Standing, standing_of
from db.operations import REPLAYED, Whole, family_of, find_job
from worker.desk.payloads import shown_fields
from worker.desk.web import desk_of, render

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

WAITS: Final = {
    "paused": "for the end of a pause",
    "newer_worker": "for a worker that knows its kind and payload",
}
ENDED: Final = {
    "completed": "took effect",
    "rejected": "was refused, which is final",
    "dead": "was given up",
    "cancelled": "was cancelled",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a job, or will."""

    at: datetime | None
    what: str
    level: str = "good"
    detail: str = ""
    sqlstate: str | None = None


async def job(request: "Request") -> "Response":
    """Show everything that is stored of a job, but for the values of its payload."""
    try:
        job_id = UUID(request.path_params["job_id"])
    except ValueError:
        raise HTTPException(404, "There is no such job: an id is a UUID.") from None
    desk = desk_of(request.app)
    async with desk.reading() as session:
        found = await find_job(session, job_id)
        if found is None:
            raise HTTPException(404, "There is no such job, or it has been deleted since.")
        standing = await standing_of(session, job_id)
        family = await family_of(session, job_id)
    if standing is None:
        raise HTTPException(404, "There is no such job, or it has been deleted since.")
    return render(
        request,
        "job.html",
        job=found,
        standing=standing,
        steps=life_of(found, standing),
        family=[one for one in family if one.id != job_id],
        fields=shown_fields(found.kind, found.payload),
        result=result_shown(found),
        trace_url=trace_url(desk.desk_settings.trace_url, found.traceparent),
        sentence=sentence_about(found, standing),
    )


def life_of(job: Whole, standing: Standing) -> list[Step]:
    """Return what happened to a job in order, and what will."""
    by = f"by job {job.parent_id}" if job.parent_id else f"under the key {job.key}" * bool(job.key)
    steps = [Step(job.enqueued_at, "Accepted", detail=by)]
    steps += [_failure(entry) for entry in job.errors]
    if job.dispatched_at is not None:
        steps.append(Step(job.dispatched_at, "Sent to Redis", detail=f"queue {job.queue}"))
    if job.slices:
        parts = "part" if job.slices == 1 else "parts"
        steps.append(Step(None, f"{job.slices} {parts} took effect"))
    if standing.leased_by:
        steps.append(
            Step(
                None, "Runs without Redis", detail=f"taken from PostgreSQL by {standing.leased_by}"
            )
        )
    if standing.blocked_since is not None:
        cause = standing.blocked_by or ""
        steps.append(
            Step(
                standing.blocked_since, "Waits", "warn", WAITS.get(cause, f"for the cause {cause}")
            )
        )
    steps.sort(key=lambda step: (step.at is None, step.at or job.enqueued_at))
    if job.finished_at is not None:
        level = {"completed": "good", "dead": "bad"}.get(job.state, "warn")
        steps.append(Step(job.finished_at, job.state.capitalize(), level, _reason(job)))
    elif standing.blocked_since is None:
        steps.append(Step(job.run_at, "Due", "next"))
    return steps


def _failure(entry: dict[str, Any]) -> Step:
    at = datetime.fromisoformat(entry["at"]) if isinstance(entry.get("at"), str) else None
    message = str(entry.get("message") or "")
    if entry.get("error") == REPLAYED:
        return Step(at, "Retried by an operator", "next", message)
    name = f"Try {entry.get('try')} failed: {entry.get('error')}"
    return Step(at, name, "bad", message, entry.get("sqlstate"))


def _reason(job: Whole) -> str:
    """Return why a job was rejected or cancelled, in the words that its result has for it."""
    if job.state not in {"rejected", "cancelled"} or not isinstance(job.result, dict):
        return ""
    words = (job.result.get("code"), job.result.get("reason"), job.result.get("detail"))
    return ": ".join(str(word) for word in words if word)


def result_shown(job: Whole) -> list[str]:
    """Return the names of what a result has; its values may be personal, as a payload's are."""
    return sorted(job.result) if isinstance(job.result, dict) else []


def trace_url(template: str, traceparent: str | None) -> str:
    """Return where a job's trace is seen; empty where nobody said, or it has none."""
    parts = (traceparent or "").split("-")
    if not template or len(parts) != 4 or not parts[1].isalnum():  # noqa: PLR2004 - W3C's four
        return ""
    return template.replace("{trace_id}", parts[1])


def sentence_about(job: Whole, standing: Standing) -> str:
    """Return how a job stands, in a sentence."""
    if job.finished_at is not None:
        took = job.finished_at - job.enqueued_at
        return f"It {ENDED[job.state]}, {_rounded(took)} after it was accepted."
    if standing.blocked_by:
        return f"It waits {WAITS.get(standing.blocked_by, f'for {standing.blocked_by}')}."
    if job.attempts:
        return f"It failed {job.attempts} times and is tried again."
    return "It waits for its turn, or runs at this moment."


def _rounded(span: timedelta) -> str:
    from worker.desk.view import span as written

    return written(span)
