"""The overview: is anything wrong, since when, and how long will it take."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from db.desk import PACE_RECENT
from db.workers import COUNTED_MAX
from worker.desk.web import desk_of, render

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from db.desk import Pace
    from worker.desk.snapshot import Snapshot, View

MINUTES_SHOWN: Final = 60
ENDS: Final = ("completed", "rejected", "cancelled", "dead")
LATE_S: Final = 60.0
"""A job that is due for longer than this is told of as late."""

TROUBLES: Final = {
    "away": "does not answer",
    "silent": "does not answer",
    "connection": "does not answer",
    "no_answer_yet": "has not answered yet",
    "access_denied": "refuses this user",
    "read_only": "takes no writes",
    "full": "is full",
    "evicts": "throws away what it was given: set maxmemory-policy to noeviction",
    "refuses_jobs": "takes no jobs",
    "schema_outdated": "has older tables than this code: run `python -m worker migrate`",
    "privileges_missing": "does not let this user read",
    "no_such_database": "has no such database",
    "slow": "took too long to answer",
}


@dataclass(frozen=True, slots=True)
class Part:
    """How one part of the service is: `good`, `warn` or `bad`, in a word and in a sentence."""

    name: str
    level: str
    word: str
    detail: str


async def overview(request: "Request") -> "Response":
    """Show how the service is."""
    return render(request, "overview.html", **await _shown(request))


async def live(request: "Request") -> "Response":
    """Return the part of the overview that changes, for the page's script to put in its place."""
    return render(request, "overview_live.html", **await _shown(request))


async def _shown(request: "Request") -> dict[str, Any]:
    view = await desk_of(request.app).snapshots.current()
    last = view.last
    values: dict[str, Any] = {"parts": parts_of(view), "view": view, "last": last}
    if last is not None:
        values |= {
            "rate": last.pace.ended_recently / PACE_RECENT.total_seconds(),
            "drain": drain_time(last),
            "minutes": by_minute(last.pace, last.taken_at),
            "states": ENDS,
            "counted_max": COUNTED_MAX,
            "age_s": (datetime.now(UTC) - last.taken_at).total_seconds(),
        }
    return values


def parts_of(view: "View") -> list[Part]:
    """Return how each part of the service is, the most important first."""
    parts = [
        _server("PostgreSQL", view.postgres_trouble, "Nothing is accepted or done without it."),
        _server(
            "Redis",
            view.redis_trouble,
            "Jobs are taken from PostgreSQL instead: slower, and nothing is lost.",
            level="warn",
        ),
    ]
    if view.last is not None:
        parts += [_workers(view.last), _queue(view.last), _dead(view.last), _held(view.last)]
    return parts


def _server(name: str, trouble: str | None, meaning: str, level: str = "bad") -> Part:
    if trouble is None:
        return Part(name, "good", "answers", "")
    return Part(name, level, TROUBLES.get(trouble, trouble), meaning)


def _workers(last: "Snapshot") -> Part:
    working = sum(seen.works for seen in last.fleet)
    lost = sum(seen.silent and seen.state != "stopped" for seen in last.fleet)
    if not working:
        return Part("Workers", "bad", "none", "Start one: `python -m worker run`.")
    if lost:
        return Part(
            "Workers", "warn", f"{working} work, {lost} silent", "Their jobs run elsewhere by now."
        )
    modes = sum(seen.works and seen.mode == "degraded" for seen in last.fleet)
    detail = f"{modes} of them without Redis." if modes else ""
    return Part("Workers", "warn" if modes else "good", f"{working} work", detail)


def _queue(last: "Snapshot") -> Part:
    late = last.backlog.oldest_runnable_age_s > LATE_S
    since = last.backlog.oldest_runnable_age_s
    detail = f"The oldest has been due for {since:,.0f} s." if late else ""
    word = f"{last.backlog.runnable:,} due" if last.backlog.runnable else "nothing waits"
    return Part("Queue", "warn" if late else "good", word, detail)


def _dead(last: "Snapshot") -> Part:
    dead = last.backlog.dead
    if not dead:
        return Part("Dead jobs", "good", "none", "")
    return Part("Dead jobs", "bad", f"{dead:,}", "They wait for somebody to decide: see Failures.")


def _held(last: "Snapshot") -> Part:
    blocked = [one for one in last.backlog.blocked if one.cause != "paused"]
    if blocked:
        jobs = sum(one.jobs for one in blocked)
        return Part("Held up", "warn", f"{jobs:,} jobs", f"First by {blocked[0].cause}.")
    if last.pauses:
        names = ", ".join(pause.name for pause in last.pauses)
        return Part("Held up", "warn", f"{len(last.pauses)} paused", f"By an operator: {names}.")
    return Part("Held up", "good", "nothing", "")


def drain_time(last: "Snapshot") -> timedelta | None:
    """Return how long what is due will take at the pace of the last minutes; None: no telling.

    What comes in meanwhile is not in it.
    """
    if not last.backlog.runnable:
        return timedelta()
    if not last.pace.ended_recently or last.backlog.runnable >= COUNTED_MAX:
        return None
    return PACE_RECENT * (last.backlog.runnable / last.pace.ended_recently)


def by_minute(pace: "Pace", now: datetime) -> list[tuple[str, dict[str, int]]]:
    """Return what ended in each of the last minutes by state, the oldest first."""
    ended: dict[datetime, dict[str, int]] = {}
    for minute in pace.minutes:
        ended.setdefault(minute.at, {})[minute.state] = minute.jobs
    this = now.astimezone(UTC).replace(second=0, microsecond=0)
    times = [this - timedelta(minutes=back) for back in reversed(range(MINUTES_SHOWN))]
    return [(f"{at:%H:%M}", ended.get(at, {})) for at in times]
