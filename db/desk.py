"""What the desk shows: lists, one job's history, failures in groups, conflicts, recent rates.

Every statement has a bound: a page of a list, the newest `RECENT_MAX` jobs, a count that stops. A
statement contains the conditions that are asked for and no others, so that an index can serve it.
"""

from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
from sqlalchemy import text

from db.operations import REPLAYED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

READ_TIMEOUT: Final = timedelta(seconds=2)
"""What a page's statement may take: a page that is slow says so, and is in nobody's way."""
LINES_MAX: Final = 50
COUNTED_MAX: Final = 10_000
"""Counts stop here."""
RECENT_MAX: Final = 20_000
"""The newest jobs that rates are computed from."""
DEAD_READ_MAX: Final = 10_000
"""The newest dead jobs that are put into groups."""
GROUPS_SHOWN_MAX: Final = 100
CONFLICTS_SHOWN_MAX: Final = 100

BEGIN_READING: Final = text("""
    SELECT set_config('statement_timeout', :timeout, true),
           set_config('transaction_read_only', 'on', true)
""")

# A group of failures: the kind, the error, its SQLSTATE, and its message without what differs from
# job to job. A dead job's last entry is the failure that ended it.
FINGERPRINT: Final = r"""left(md5(concat_ws(E'\n', jobs.kind, jobs.errors->-1->>'error',
    jobs.errors->-1->>'sqlstate',
    regexp_replace(regexp_replace(left(jobs.errors->-1->>'message', 300),
      '"[^"]*"|''[^'']*''', '…', 'g'),
      '[0-9a-fA-F]{8}-[0-9a-fA-F-]{27}|[0-9]+', '#', 'g'))), 16)"""

_LAST_ERROR: Final = """LEFT JOIN LATERAL (
      SELECT entry FROM jsonb_array_elements(jobs.errors) WITH ORDINALITY AS e (entry, position)
      WHERE entry->>'error' <> :replayed ORDER BY position DESC LIMIT 1) AS last ON true"""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which jobs; what is None lets every job through."""

    kind: str | None = None
    state: str | None = None
    queue: str | None = None
    key: str | None = None
    error: str | None = None
    """The name of an exception or a SQLSTATE among the job's errors."""
    since: datetime | None = None
    until: datetime | None = None
    attempts: int | None = None
    """As many attempts or more."""
    parent: UUID | None = None
    batch: UUID | None = None
    paused: bool | None = None
    """Only those that wait for the end of a pause."""
    group: str | None = None
    """The fingerprint of the failure that ended it; for dead jobs."""
    contains: dict[str, Any] | None = field(default=None)
    """What its payload contains, by the names of public fields."""

    def conditions(self) -> tuple[list[str], dict[str, Any]]:
        """Return the SQL conditions of what is asked for, and their parameters."""
        found, values = [], {}
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None:
                continue
            found.append(_CONDITIONS[one.name])
            values[one.name] = orjson.dumps(value).decode() if one.name == "contains" else value
        if self.error is not None:
            values["errors_like"] = orjson.dumps([{"error": self.error}]).decode()
            values["sqlstate_like"] = orjson.dumps([{"sqlstate": self.error}]).decode()
            del values["error"]
        if self.paused is not None:
            del values["paused"]
        return found, values


_CONDITIONS: Final = {
    "kind": "jobs.kind = :kind",
    "state": "jobs.state = :state",
    "queue": "jobs.queue = :queue",
    "key": "jobs.key = :key",
    "error": "(jobs.errors @> CAST(:errors_like AS jsonb)"
    " OR jobs.errors @> CAST(:sqlstate_like AS jsonb))",
    "since": "jobs.enqueued_at >= :since",
    "until": "jobs.enqueued_at < :until",
    "attempts": "jobs.attempts >= :attempts",
    "parent": "jobs.parent_id = :parent",
    "batch": "jobs.batch_id = :batch",
    "paused": "jobs.blocked_by = 'paused'",
    "group": f"{FINGERPRINT} = :group",
    "contains": "jobs.payload @> CAST(:contains AS jsonb)",
}


@dataclass(frozen=True, slots=True)
class JobLine:
    """A job in a list."""

    id: UUID
    kind: str
    key: str | None
    queue: str
    state: str
    attempts: int
    blocked_by: str | None
    enqueued_at: datetime
    run_at: datetime
    finished_at: datetime | None
    error: str | None
    sqlstate: str | None

    @property
    def position(self) -> tuple[datetime, UUID]:
        """Where a page that ends with it goes on, in the order of its list."""
        return self.ordered_at, self.id

    @property
    def ordered_at(self) -> datetime:
        """The time that lists of its state are in order of."""
        return (self.finished_at or self.enqueued_at) if self.state == "dead" else self.enqueued_at


Position = tuple[datetime, UUID]


@dataclass(frozen=True, slots=True)
class JobPage:
    """A page of a list, newest first."""

    lines: "Sequence[JobLine]"
    has_newer: bool
    has_older: bool


async def begin_reading(session: "AsyncSession") -> None:
    """Have the session's transaction only read, and each statement of it end in time."""
    timeout = str(round(READ_TIMEOUT.total_seconds() * 1000))
    await session.execute(BEGIN_READING, {"timeout": timeout})


async def page_of_jobs(
    session: "AsyncSession",
    wanted: Wanted,
    *,
    before: Position | None = None,
    after: Position | None = None,
    limit: int = LINES_MAX,
) -> JobPage:
    """Return a page of the jobs wanted, newest first; dead ones by the time of their end.

    Args:
        session: any.
        wanted: which jobs.
        before: only what is older than this.
        after: only what is newer than this; the page next to it.
        limit: lines at most.
    """
    conditions, values = wanted.conditions()
    order = "jobs.finished_at" if wanted.state == "dead" else "jobs.enqueued_at"
    if wanted.state == "dead" and wanted.paused is None:
        conditions[conditions.index(_CONDITIONS["state"])] = "jobs.state = 'dead'"  # the index's
        del values["state"]
    edge = after or before
    if edge is not None:
        conditions.append(f"({order}, jobs.id) {'>' if after else '<'} (:edge_at, :edge_id)")
        values |= {"edge_at": edge[0], "edge_id": edge[1]}
    way = "ASC" if after else "DESC"
    rows = await session.execute(
        text(f"""
            SELECT jobs.id, kind, key, queue, state, attempts, blocked_by, enqueued_at, run_at,
                   finished_at, last.entry->>'error', last.entry->>'sqlstate'
            FROM (SELECT * FROM jobs {_where(conditions)}
                  ORDER BY {order} {way}, jobs.id {way} LIMIT :limit) AS jobs {_LAST_ERROR}
            ORDER BY {order} DESC, jobs.id DESC
        """),  # noqa: S608 - conditions of our own
        {**values, "limit": limit + 1, "replayed": REPLAYED},
    )
    lines = [JobLine(*row) for row in rows]
    more = len(lines) > limit
    if after:
        return JobPage(lines[-limit:], has_newer=more, has_older=True)
    return JobPage(lines[:limit], has_newer=before is not None, has_older=more)


async def count_wanted(session: "AsyncSession", wanted: Wanted) -> int:
    """Count the jobs wanted, up to `COUNTED_MAX`: one more means that there are more."""
    conditions, values = wanted.conditions()
    counted: int = await session.scalar(
        text(f"""
            SELECT count(*) FROM (SELECT FROM jobs {_where(conditions)} LIMIT :counted) AS found
        """),  # noqa: S608 - conditions of our own
        {**values, "counted": COUNTED_MAX + 1},
    )
    return counted


def _where(conditions: "Sequence[str]") -> str:
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


DETAILS = text("""
    SELECT conflicts, crashes, blocked_since, blocked_by, leased_by, expires_at, batch_id, notify
    FROM jobs WHERE id = :id
""")


@dataclass(frozen=True, slots=True)
class Standing:
    """What a job waits for or has met, beside what `db.operations.Whole` has."""

    conflicts: int
    crashes: int
    blocked_since: datetime | None
    blocked_by: str | None
    leased_by: str | None
    expires_at: datetime | None
    batch_id: UUID | None
    notify: str | None


async def standing_of(session: "AsyncSession", job_id: UUID) -> Standing | None:
    """Return what a job waits for or has met."""
    row = (await session.execute(DETAILS, {"id": job_id})).one_or_none()
    return None if row is None else Standing(*row)


GROUPS = text(f"""
    WITH dead AS (
      SELECT * FROM jobs WHERE state = 'dead' ORDER BY finished_at DESC, id DESC LIMIT :read
    )
    SELECT fingerprint, min(kind), min(error), min(sqlstate), max(message), count(*),
           min(finished_at), max(finished_at), (array_agg(id ORDER BY finished_at DESC))[1],
           array_agg(extract(epoch FROM now() - finished_at)::float8)
    FROM (
      SELECT jobs.id, jobs.kind, finished_at, {FINGERPRINT} AS fingerprint,
             errors->-1->>'error' AS error, errors->-1->>'sqlstate' AS sqlstate,
             left(errors->-1->>'message', 300) AS message
      FROM dead AS jobs
    ) AS failed
    GROUP BY fingerprint ORDER BY count(*) DESC, max(finished_at) DESC LIMIT :shown
""")  # noqa: S608 - an expression of our own


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Dead jobs that failed alike, among the newest `DEAD_READ_MAX`."""

    fingerprint: str
    kind: str
    error: str | None
    sqlstate: str | None
    message: str | None
    """Of one of them."""
    jobs: int
    first_at: datetime
    last_at: datetime
    newest_id: UUID
    ages_s: "Sequence[float]"


async def failure_groups(session: "AsyncSession") -> "Sequence[FailureGroup]":
    """Return the newest dead jobs in groups, the largest first."""
    rows = await session.execute(GROUPS, {"read": DEAD_READ_MAX, "shown": GROUPS_SHOWN_MAX})
    return [FailureGroup(*row) for row in rows]


MINUTES = text("""
    SELECT date_bin('1 minute', finished_at, TIMESTAMPTZ '2000-01-01') AS minute, state, count(*)
    FROM (
      SELECT finished_at, state FROM jobs
      WHERE enqueued_at > now() - CAST(:period AS interval)
      ORDER BY enqueued_at DESC LIMIT :read
    ) AS newest
    WHERE finished_at IS NOT NULL
    GROUP BY 1, 2 ORDER BY 1
""")

# From when a job could run to its end: what a caller waits for.
SPANS = text("""
    SELECT count(*),
           percentile_cont(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY span_s)
    FROM (
      SELECT greatest(0, extract(epoch FROM finished_at - greatest(run_at, enqueued_at)))::float8
             AS span_s, finished_at
      FROM jobs WHERE enqueued_at > now() - CAST(:period AS interval)
      ORDER BY enqueued_at DESC LIMIT :read
    ) AS newest
    WHERE finished_at > now() - CAST(:recent AS interval)
""")


@dataclass(frozen=True, slots=True)
class Minute:
    """How many jobs ended in one minute, in one state."""

    at: datetime
    state: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast jobs ended of late, among the newest `RECENT_MAX` of the last hour."""

    minutes: "Sequence[Minute]"
    ended_recently: int
    """In the last five minutes."""
    spans_s: "Sequence[float]"
    """From due to ended, in those minutes: p50, p95, p99; empty where none ended."""
    reached_bound: bool = False
    """Whether `RECENT_MAX` was reached, so that there were more."""


PACE_PERIOD: Final = timedelta(hours=1)
PACE_RECENT: Final = timedelta(minutes=5)


async def pace(session: "AsyncSession") -> Pace:
    """Return how fast jobs ended of late."""
    bounds = {"period": PACE_PERIOD, "read": RECENT_MAX}
    minutes = [Minute(*row) for row in await session.execute(MINUTES, bounds)]
    ended, spans = (await session.execute(SPANS, {**bounds, "recent": PACE_RECENT})).one()
    seen = sum(one.jobs for one in minutes)
    return Pace(minutes, ended, spans or (), reached_bound=seen >= RECENT_MAX)
