"""What the demo and the fault injection ask: how groups of jobs and the connections stand.

A group is found by the prefix that its jobs' keys share.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession


@dataclass(frozen=True, slots=True)
class Row:
    """Jobs of one kind with one outcome."""

    kind: str
    state: str
    code: str | None
    """A rejection's code."""
    count: int


@dataclass(frozen=True, slots=True)
class Tally:
    """How a group of jobs stands."""

    rows: Sequence[Row]

    @property
    def accepted(self) -> int:
        """All of them."""
        return sum(row.count for row in self.rows)

    @property
    def live(self) -> int:
        """Those that are not final."""
        return sum(row.count for row in self.rows if row.state == "queued")

    @property
    def final(self) -> int:
        """Those that are."""
        return self.accepted - self.live


@dataclass(frozen=True, slots=True)
class Job:
    """A job with what came of it."""

    id: UUID
    kind: str
    payload: Any
    result: Any


@dataclass(frozen=True, slots=True)
class JobOutcome:
    """How far one job is."""

    id: UUID
    state: str
    error: str | None
    """The name of its last error."""
    finished_at: datetime | None


COUNT = text("""
    SELECT kind, state, CASE state WHEN 'rejected' THEN result->>'code' END AS code, count(*)
    FROM jobs WHERE starts_with(key, :prefix)
    GROUP BY kind, state, code ORDER BY kind, state, code
""")

COMPLETED = text("""
    SELECT id, kind, payload, result FROM jobs
    WHERE starts_with(key, :prefix) AND state = 'completed' ORDER BY id
""")

# A batch's members have the job that opened it as their parent.
FAMILY = text("""
    WITH RECURSIVE family AS (
        SELECT id, kind, state FROM jobs WHERE id = ANY(:ids)
        UNION ALL
        SELECT jobs.id, jobs.kind, jobs.state FROM jobs JOIN family ON jobs.parent_id = family.id
    )
    SELECT kind, state, count(*) FROM family GROUP BY kind, state
""")

PAYOUT_REPORTS = text("""
    SELECT CASE state WHEN 'completed' THEN result END FROM jobs
    WHERE kind = 'report_payout' AND payload->>'payout' = ANY(:ids)
""")

DELIVERIES = text("""
    SELECT id::text FROM jobs
    WHERE kind = 'deliver_webhook' AND payload->>'endpoint' = :endpoint
""")

QUEUED = text("SELECT count(*) FROM jobs WHERE state = 'queued'")

QUEUED_FOLLOW_UPS = text("""
    SELECT count(*) FROM jobs WHERE parent_id = :parent AND state = 'queued'
""")

ENDED_OTHERWISE = text("""
    SELECT count(*) FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[])) AS wanted (id, state)
    LEFT JOIN jobs ON jobs.id = wanted.id
    WHERE jobs.state IS DISTINCT FROM wanted.state
""")

OUTCOMES = text("""
    SELECT id, state, errors->-1->>'error' AS error, finished_at FROM jobs WHERE id = ANY(:ids)
""")

SPANS = text("""
    SELECT extract(epoch FROM enqueued_at)::float8, extract(epoch FROM finished_at)::float8
    FROM jobs WHERE starts_with(key, :prefix) AND finished_at IS NOT NULL
    ORDER BY enqueued_at
""")

LEFT_LOCKS = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = :class")

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


async def tally(session: "AsyncSession", prefix: str) -> Tally:
    """Count the jobs whose keys begin with `prefix`."""
    rows = await session.execute(COUNT, {"prefix": prefix})
    return Tally([Row(*row) for row in rows])


async def completed(session: "AsyncSession", prefix: str) -> Sequence[Job]:
    """Return the completed jobs whose keys begin with `prefix`, in order of acceptance."""
    rows = await session.execute(COMPLETED, {"prefix": prefix})
    return [Job(*row) for row in rows]


async def queued_follow_ups(session: "AsyncSession", parent: UUID) -> int:
    """Count the jobs that another has enqueued and that are not final."""
    found: int = await session.scalar(QUEUED_FOLLOW_UPS, {"parent": parent})
    return found


async def family_of(session: "AsyncSession", ids: "Collection[UUID]") -> Counter[tuple[str, str]]:
    """Count these jobs, and all that followed from them, by kind and state."""
    rows = await session.execute(FAMILY, {"ids": list(ids)})
    return Counter({(kind, state): count for kind, state, count in rows})


async def payout_reports(session: "AsyncSession", payouts: "Collection[UUID]") -> list[Any]:
    """Return the results of the reports of these payouts; None of one that is not completed."""
    found = await session.scalars(PAYOUT_REPORTS, {"ids": list(map(str, payouts))})
    return list(found)


async def deliveries_to(session: "AsyncSession", endpoint: str) -> set[str]:
    """Return the ids of the jobs that deliver to an endpoint."""
    return set(await session.scalars(DELIVERIES, {"endpoint": endpoint}))


async def queued(session: "AsyncSession") -> int:
    """Count the jobs that are not final."""
    found: int = await session.scalar(QUEUED)
    return found


async def ended_otherwise(session: "AsyncSession", states: "Mapping[UUID, str]") -> int:
    """Count the jobs that are not in the state they should be in, the missing ones included."""
    wanted = {"ids": list(states), "states": list(states.values())}
    found: int = await session.scalar(ENDED_OTHERWISE, wanted)
    return found


async def outcomes_of(session: "AsyncSession", ids: "Collection[UUID]") -> Sequence[JobOutcome]:
    """Return how far those of these jobs are that are in the record."""
    rows = await session.execute(OUTCOMES, {"ids": list(ids)})
    return [JobOutcome(*row) for row in rows]


async def spans(session: "AsyncSession", prefix: str) -> Sequence[tuple[float, float]]:
    """Return when each final job was accepted and when it ended, as Unix seconds.

    Of those whose keys begin with `prefix`, in order of acceptance.
    """
    rows = await session.execute(SPANS, {"prefix": prefix})
    return [(accepted_at, finished_at) for accepted_at, finished_at in rows]


async def left_locks(session: "AsyncSession", lock_class: int) -> int:
    """Count the advisory locks whose first key is `lock_class`."""
    found: int = await session.scalar(LEFT_LOCKS, {"class": lock_class})
    return found


async def terminate_backends(connection: "AsyncConnection", name_like: str) -> int:
    """End this database's connections whose application name is like that; return how many."""
    ended: int = await connection.scalar(TERMINATE, {"name": name_like})
    return ended


async def idle_in_transaction(session: "AsyncSession", longer_than: timedelta) -> int:
    """Count this database's connections that hold a transaction open and do nothing for long."""
    found: int = await session.scalar(IDLE_IN_TRANSACTION, {"longer_than": longer_than})
    return found
