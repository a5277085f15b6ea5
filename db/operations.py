"""Looking at jobs and connections from outside: the queries of `worker jobs` and of the checks."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    from db.execution import State

PAGE_MAX: Final = 1_000
REPLAYED: Final = "Replayed"
"""The entry that a replay leaves among a job's errors."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which jobs; what is None lets every job through."""

    state: "State | None" = None
    kind: str | None = None
    since: datetime | None = None
    """Accepted at this time or later."""
    error: str | None = None
    """The name of an exception or a SQLSTATE among the job's errors."""

    def as_parameters(self) -> dict[str, Any]:
        """Return what `MATCHES` is bound to."""
        return {"state": self.state, "kind": self.kind, "since": self.since, "error": self.error}


MATCHES: Final = """
    (CAST(:state AS text) IS NULL OR state = :state)
    AND (CAST(:kind AS text) IS NULL OR kind = :kind)
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
    """Everything that the record says of a job."""

    id: UUID
    redis_id: str | None
    kind: str
    key: str | None
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
    SELECT id, redis_id, kind, key, state, payload, result, errors, attempts, enqueued_at, run_at,
           dispatched_at, finished_at, traceparent
    FROM jobs WHERE id = :id
""")

QUEUED = text("SELECT count(*) FROM jobs WHERE state = 'queued'")

ENDED_OTHERWISE = text("""
    SELECT count(*) FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[])) AS wanted (id, state)
    LEFT JOIN jobs ON jobs.id = wanted.id
    WHERE jobs.state IS DISTINCT FROM wanted.state
""")

BALANCES = text("SELECT id, balance FROM accounts WHERE id = ANY(CAST(:ids AS uuid[]))")

TERMINATE = text("""
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE :name AND datname = current_database()
      AND pid <> pg_backend_pid()
""")

IDLE_IN_TRANSACTION = text("""
    SELECT count(*) FROM pg_stat_activity
    WHERE state LIKE 'idle in transaction%' AND datname = current_database()
      AND pid <> pg_backend_pid()
      AND state_change < clock_timestamp() - CAST(:longer_than AS interval)
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
    """Return all that the record says of a job, or None."""
    row = (await session.execute(WHOLE, {"id": job_id})).one_or_none()
    return None if row is None else Whole(*row)


async def queued(session: "AsyncSession") -> int:
    """Count the jobs that are not final."""
    found: int = await session.scalar(QUEUED)
    return found


async def ended_otherwise(session: "AsyncSession", states: "Mapping[UUID, str]") -> int:
    """Count the jobs that are not in the state they should be in, the missing ones included."""
    wanted = {"ids": list(states), "states": list(states.values())}
    found: int = await session.scalar(ENDED_OTHERWISE, wanted)
    return found


async def balances(session: "AsyncSession", accounts: "Sequence[UUID]") -> dict[UUID, int]:
    """Return accounts' balances in minor units."""
    rows = await session.execute(BALANCES, {"ids": list(accounts)})
    return {row.id: row.balance for row in rows}


async def terminate_backends(connection: "AsyncConnection", name_like: str) -> int:
    """End this database's connections whose application name is like that; return how many."""
    ended: int = await connection.scalar(TERMINATE, {"name": name_like})
    return ended


async def idle_in_transaction(session: "AsyncSession", longer_than: timedelta) -> int:
    """Count this database's connections that hold a transaction open and do nothing for long."""
    found: int = await session.scalar(IDLE_IN_TRANSACTION, {"longer_than": longer_than})
    return found
