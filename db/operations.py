"""What an operator may see and change: the queries of `worker jobs`.

Dead jobs run again and queued ones are cancelled; nothing else is changed.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
from sqlalchemy import text

from db.dispatch import UNSENT_COLUMNS, Unsent
from db.execution import ERRORS_KEPT_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from db.execution import State

PAGE_MAX: Final = 1_000
FAMILY_MAX: Final = 200
"""Jobs of one family that are shown."""
REPLAYED: Final = "Replayed"
"""The entry that a replay leaves among a job's errors."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; what is None lets every job through."""

    state: "State | None" = None
    kind: str | None = None
    queue: str | None = None
    since: datetime | None = None
    """Accepted at this time or later."""
    error: str | None = None
    """The name of an exception or a SQLSTATE among the job's errors."""

    def as_parameters(self) -> dict[str, Any]:
        """Return what `MATCHES` is bound to."""
        return {
            "state": self.state,
            "kind": self.kind,
            "queue": self.queue,
            "since": self.since,
            "error": self.error,
        }


MATCHES: Final = """
    (CAST(:state AS text) IS NULL OR state = :state)
    AND (CAST(:kind AS text) IS NULL OR kind = :kind)
    AND (CAST(:queue AS text) IS NULL OR queue = :queue)
    AND (CAST(:since AS timestamptz) IS NULL OR enqueued_at >= :since)
    AND (CAST(:error AS text) IS NULL OR EXISTS (
          SELECT FROM jsonb_array_elements(errors) AS e
          WHERE e->>'error' = :error OR e->>'sqlstate' = :error))
"""


@dataclass(frozen=True, slots=True)
class Line:
    """A job in a list."""

    id: UUID
    kind: str
    state: "State"
    attempts: int
    enqueued_at: datetime
    run_at: datetime
    finished_at: datetime | None
    error: str | None
    """The last one's name."""
    sqlstate: str | None


@dataclass(frozen=True, slots=True)
class Whole:
    """Everything that is stored of a job."""

    id: UUID
    redis_id: str | None
    kind: str
    key: str | None
    queue: str
    state: "State"
    payload: Any
    result: Any
    errors: "Sequence[dict[str, Any]]"
    attempts: int
    enqueued_at: datetime
    run_at: datetime
    dispatched_at: datetime | None
    finished_at: datetime | None
    traceparent: str | None
    parent_id: UUID | None
    slices: int
    cursor: Any
    progress: Any
    conflicts: int
    """Times it was put back in a row for locks and conflicts."""
    crashes: int
    """Processes that died while they ran it, in a row."""
    blocked_by: str | None
    blocked_since: datetime | None
    leased_by: str | None
    """The worker that runs it from its row."""


@dataclass(frozen=True, slots=True)
class Relative:
    """A job of the family of another, which has enqueued one another."""

    id: UUID
    parent_id: UUID | None
    kind: str
    state: "State"
    finished_at: datetime | None


Position = tuple[datetime, UUID]
"""Where a page ends: the last line's time of acceptance and id."""

# Newest first, by keyset: a page costs the same however far down it is.
LIST = text(f"""
    SELECT id, kind, state, attempts, enqueued_at, run_at, finished_at,
           last.entry->>'error' AS error, last.entry->>'sqlstate' AS sqlstate
    FROM jobs LEFT JOIN LATERAL (
      SELECT entry FROM jsonb_array_elements(errors) WITH ORDINALITY AS e (entry, position)
      WHERE entry->>'error' <> :replayed ORDER BY position DESC LIMIT 1) AS last ON true
    WHERE {MATCHES}
      AND (CAST(:before_at AS timestamptz) IS NULL OR (enqueued_at, id) < (:before_at, :before_id))
    ORDER BY enqueued_at DESC, id DESC LIMIT :limit
""")  # noqa: S608 - a constant of our own

COUNT = text(f"SELECT count(*) FROM jobs WHERE {MATCHES}")  # noqa: S608 - a constant of our own

WHOLE = text("""
    SELECT id, redis_id, kind, key, queue, state, payload, result, errors, attempts, enqueued_at,
           run_at, dispatched_at, finished_at, traceparent, parent_id, slices, cursor, progress,
           conflicts, crashes, blocked_by, blocked_since, leased_by
    FROM jobs WHERE id = :id
""")

# Up to the first of the family that is still stored, then down from there, each level after the one
# above it. A row that names itself among its ancestors cannot be, and would end at the bound.
FAMILY = text("""
    WITH RECURSIVE up (id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM jobs WHERE id = :id
        UNION ALL
        SELECT j.id, j.parent_id, depth + 1 FROM up JOIN jobs j ON j.id = up.parent_id
        WHERE depth < :limit
    ), down (id, depth) AS (
        (SELECT id, 0 FROM up ORDER BY up.depth DESC LIMIT 1)
        UNION ALL
        SELECT j.id, depth + 1 FROM down JOIN jobs j ON j.parent_id = down.id
        WHERE depth < :limit
    ), family AS (SELECT id, depth FROM down LIMIT :limit)
    SELECT j.id, j.parent_id, j.kind, j.state, j.finished_at
    FROM family JOIN jobs j USING (id) ORDER BY family.depth, j.enqueued_at, j.id
""")

# The row is queued again, so it can be finalized again: by the new delivery or by a late one of the
# dead job, whichever is first, and by no other.
REPLAY: Final = f"""
    UPDATE jobs
    SET state = 'queued', attempts = 0, conflicts = 0, crashes = 0, blocked_since = NULL,
        blocked_by = NULL, leased_by = NULL, result = NULL, finished_at = NULL,
        dispatched_at = NULL,
        run_at = clock_timestamp(),
        errors = CASE WHEN jsonb_array_length(errors) < :errors_max THEN errors ELSE errors - 0 END
          || jsonb_build_array(CAST(:note AS jsonb)
               || jsonb_build_object('try', attempts, 'at', clock_timestamp()))
    WHERE id IN ({{which}}) AND state = 'dead'
    RETURNING {UNSENT_COLUMNS}
"""  # noqa: S608 - nothing but our own column names

# What dies again during a replay of many has a later end, and is not replayed a second time.
REPLAY_BATCH = text(
    REPLAY.format(
        which=f"""
        SELECT id FROM jobs WHERE {MATCHES} AND state = 'dead' AND finished_at < :until
        ORDER BY finished_at, id LIMIT :limit FOR UPDATE SKIP LOCKED"""  # noqa: S608 - our own
    )
)
CLOCK = text("SELECT clock_timestamp()")

REPLAY_THESE = text(REPLAY.format(which="SELECT unnest(CAST(:ids AS uuid[]))"))

# MATERIALIZED: the function would otherwise run before the lock, which then finds no row.
CANCEL_BATCH = text(f"""
    WITH batch AS MATERIALIZED (
      SELECT id, redis_id FROM jobs WHERE {MATCHES} AND state = 'queued'
      ORDER BY run_at, id LIMIT :limit FOR UPDATE SKIP LOCKED)
    SELECT id, redis_id FROM batch WHERE cancel_job(id, :reason)
""")  # noqa: S608 - a constant of our own

CANCEL_THESE = text("""
    WITH these AS MATERIALIZED (
      SELECT id, redis_id FROM jobs WHERE id = ANY(CAST(:ids AS uuid[])) AND state = 'queued'
      ORDER BY id FOR UPDATE)
    SELECT id, redis_id FROM these WHERE cancel_job(id, :reason)
""")


async def list_jobs(
    session: "AsyncSession", which: Filter, *, before: Position | None, limit: int
) -> "Sequence[Line]":
    """Return a page of jobs, newest first.

    Args:
        session: any.
        which: the jobs wanted.
        before: where the page before ended.
        limit: lines at most, up to `PAGE_MAX`.
    """
    before_at, before_id = before or (None, None)
    page = {"before_at": before_at, "before_id": before_id, "limit": min(limit, PAGE_MAX)}
    query = {**which.as_parameters(), **page, "replayed": REPLAYED}
    return [Line(*row) for row in await session.execute(LIST, query)]


async def count_jobs(session: "AsyncSession", which: Filter) -> int:
    """Count the jobs that a filter lets through."""
    found: int = await session.scalar(COUNT, which.as_parameters())
    return found


async def find_job(session: "AsyncSession", job_id: UUID) -> Whole | None:
    """Return everything that is stored of a job, or None."""
    row = (await session.execute(WHOLE, {"id": job_id})).one_or_none()
    return None if row is None else Whole(*row)


async def family_of(session: "AsyncSession", job_id: UUID) -> "Sequence[Relative]":
    """Return a job with its ancestors and all that they have enqueued, parents before children.

    Not more than `FAMILY_MAX`; a job without relatives is alone.
    """
    rows = await session.execute(FAMILY, {"id": job_id, "limit": FAMILY_MAX})
    return [Relative(*row) for row in rows]


async def replay_these(
    session: "AsyncSession", ids: "Sequence[UUID]", note: str
) -> "Sequence[Unsent]":
    """Put dead jobs back into the queue, their attempts renewed; return those that were dead."""
    rows = await session.execute(REPLAY_THESE, {"ids": list(ids), **_entry(note)})
    return [Unsent(*row) for row in rows]


async def clock(session: "AsyncSession") -> datetime:
    """Return the database's time, by which every job's end is dated."""
    now: datetime = await session.scalar(CLOCK)
    return now


async def replay_batch(
    session: "AsyncSession", which: Filter, note: str, *, until: datetime, limit: int
) -> "Sequence[Unsent]":
    """Put up to `limit` dead jobs back that died before `until`."""
    query = {**which.as_parameters(), **_entry(note), "until": until, "limit": limit}
    return [Unsent(*row) for row in await session.execute(REPLAY_BATCH, query)]


async def cancel_these(
    session: "AsyncSession", ids: "Sequence[UUID]", reason: str
) -> dict[UUID, str]:
    """Cancel jobs that have not taken effect; return the Redis ids of those that had not."""
    rows = await session.execute(CANCEL_THESE, {"ids": list(ids), "reason": reason})
    return {row.id: row.redis_id or str(row.id) for row in rows}


async def cancel_batch(
    session: "AsyncSession", which: Filter, reason: str, *, limit: int
) -> dict[UUID, str]:
    """Cancel up to `limit` queued jobs; those that run from PostgreSQL are passed over."""
    which = replace(which, state="queued")
    query = {**which.as_parameters(), "reason": reason, "limit": limit}
    rows = await session.execute(CANCEL_BATCH, query)
    return {row.id: row.redis_id or str(row.id) for row in rows}


def _entry(note: str) -> dict[str, object]:
    entry = {"error": REPLAYED, "message": note, "sqlstate": None}
    return {"note": orjson.dumps(entry).decode(), "errors_max": ERRORS_KEPT_MAX}
