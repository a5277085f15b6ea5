"""Pauses: what does not run at the moment, and the jobs that wait for its end.

A paused queue needs nothing but its row in `pauses`. Jobs of a paused kind are set apart in their
own rows (`blocked_by = 'paused'`), as workers and relays meet them, so that they are in nobody's
way, however many they are. A pause that has ended keeps its row for a while: until every job is let
go, and nobody can have a list from before its end.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db.models import NOT_PAUSED

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy.ext.asyncio import AsyncSession

    from db.execution import JobRef

SET_APART_LOCK_ID: Final = 7_311_200_002
"""The advisory lock of the one process that sets jobs apart."""
FORGOTTEN_AFTER: Final = timedelta(minutes=1)
"""No process goes by a list of pauses that is older."""

_ACTIVE: Final = "(until IS NULL OR until > clock_timestamp())"

READ = text(f"SELECT target, by, reason, since, until, {_ACTIVE} FROM pauses ORDER BY target")  # noqa: S608 - a condition of our own

# Whoever asks may have an older list: the row decides.
HOLD = text(f"""
    UPDATE jobs
    SET blocked_by = 'paused', blocked_since = clock_timestamp(), dispatched_at = NULL,
        leased_by = NULL,
        crashes = greatest(crashes - CAST(leased_by IS NOT NULL AS integer), :crashes),
        run_at = CASE WHEN leased_by IS NULL THEN run_at ELSE clock_timestamp() END
    WHERE id = :id AND state = 'queued'
      AND EXISTS (SELECT FROM pauses WHERE target = 'kind:' || jobs.kind AND {_ACTIVE})
    RETURNING 1
""")  # noqa: S608 - as above

HOLD_NEW = text(f"""
    INSERT INTO jobs (id, kind, payload, queue, enqueued_at, run_at, redis_id, crashes,
                      blocked_by, blocked_since)
    SELECT CAST(:id AS uuid), CAST(:kind AS text), CAST(:payload AS jsonb), CAST(:queue AS text),
           CAST(:enqueued_at AS timestamptz), CAST(:enqueued_at AS timestamptz),
           CAST(:redis_id AS text), CAST(:crashes AS integer), 'paused', clock_timestamp()
    WHERE EXISTS (
      SELECT FROM pauses WHERE target = 'kind:' || CAST(:kind AS text) AND {_ACTIVE})
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
""")  # noqa: S608 - as above

# What Redis has is met there, and what a worker runs from its row goes on.
SET_APART = text(f"""
    UPDATE jobs SET blocked_by = 'paused', blocked_since = clock_timestamp()
    FROM (
        SELECT id FROM jobs
        WHERE (SELECT pg_try_advisory_xact_lock(:lock)) AND queue = ANY(:queues)
          AND state = 'queued' AND dispatched_at IS NULL AND {NOT_PAUSED}
          AND run_at < now() + CAST(:ahead AS interval) AND leased_by IS NULL
          AND kind = ANY(:kinds)
        LIMIT :limit FOR UPDATE SKIP LOCKED
    ) AS found
    WHERE jobs.id = found.id
""")  # noqa: S608 - as above

LET_GO = text("""
    WITH held AS (
        SELECT id FROM jobs
        WHERE state = 'queued' AND blocked_by = 'paused' AND kind = :kind
        LIMIT :limit FOR UPDATE SKIP LOCKED
    ), freed AS (
        UPDATE jobs SET blocked_by = NULL, blocked_since = NULL, dispatched_at = NULL
        FROM held WHERE jobs.id = held.id RETURNING 1
    )
    SELECT count(*) FROM freed
""")

FORGET = text("""
    DELETE FROM pauses
    WHERE until < clock_timestamp() - CAST(:age AS interval)
      AND NOT EXISTS (SELECT FROM jobs WHERE state = 'queued' AND blocked_by = 'paused'
                        AND 'kind:' || kind = pauses.target)
""")

PAUSE = {
    "kind": text("SELECT pause_kind(:name, :reason, :by, :until)"),
    "queue": text("SELECT pause_queue(:name, :reason, :by, :until)"),
}
RESUME = {
    "kind": text("SELECT resume_kind(:name)"),
    "queue": text("SELECT resume_queue(:name)"),
}


@dataclass(frozen=True, slots=True)
class Pause:
    """One kind of job, or one queue, that does not run, or did not until a moment ago."""

    target: str
    """`kind:` or `queue:`, and its name."""
    by: str
    reason: str
    since: datetime
    until: datetime | None
    active: bool

    @property
    def what(self) -> str:
        """`kind` or `queue`."""
        return self.target.partition(":")[0]

    @property
    def name(self) -> str:
        """The kind's or the queue's."""
        return self.target.partition(":")[2]


class Pauses:
    """The pauses as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def read(self) -> list[Pause]:
        """Return every pause, those that ended a moment ago included."""
        return [Pause(*row) for row in await self._session.execute(READ)]

    async def begin(
        self, what: str, name: str, *, reason: str, by: str, until: datetime | None
    ) -> None:
        """Pause a kind or a queue from this commit on; again: with this reason and this end.

        Args:
            what: `kind` or `queue`.
            name: its.
            reason: why, for whoever asks.
            by: who.
            until: when it ends by itself; None: when somebody ends it.
        """
        pause = {"name": name, "reason": reason, "by": by, "until": until}
        await self._session.execute(PAUSE[what], pause)

    async def end(self, what: str, name: str) -> bool:
        """End a pause; False where there is none."""
        return bool(await self._session.scalar(RESUME[what], {"name": name}))

    async def hold(self, job: "JobRef", crashes: int, *, by_id: bool) -> bool:
        """Set a job apart that Redis gave out though its kind is paused.

        Args:
            job: as it was delivered.
            crashes: processes that died under it.
            by_id: whether only its id came, so that no row can be made of it.

        Returns:
            False where its kind is not paused any more, or the job is over.
        """
        row = {
            "id": job.id,
            "kind": job.kind,
            "payload": job.payload_json,
            "queue": job.queue,
            "enqueued_at": job.enqueued_at,
            "redis_id": job.redis_id,
            "crashes": crashes,
        }
        if await self._session.scalar(HOLD, {"id": job.id, "crashes": crashes}) is not None:
            return True
        return not by_id and await self._session.scalar(HOLD_NEW, row) is not None

    async def set_apart(
        self, kinds: "Collection[str]", queues: "Collection[str]", limit: int, *, ahead: timedelta
    ) -> None:
        """Set jobs of paused kinds apart that are due soon and that Redis was never sent."""
        found = {
            "kinds": list(kinds),
            "queues": list(queues),
            "limit": limit,
            "ahead": ahead,
            "lock": SET_APART_LOCK_ID,
        }
        await self._session.execute(SET_APART, found)

    async def let_go(self, kind: str, limit: int) -> int:
        """Let jobs of a kind run again whose pause has ended; return how many there were."""
        freed: int = await self._session.scalar(LET_GO, {"kind": kind, "limit": limit})
        return freed

    async def forget(self) -> None:
        """Delete pauses that ended long ago and for which no job waits."""
        await self._session.execute(FORGET, {"age": FORGOTTEN_AFTER})
