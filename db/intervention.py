"""What an operator may change: dead jobs run again, queued ones are cancelled. Never more."""

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import orjson
from sqlalchemy import text

from db.dispatch import Unsent
from db.execution import ERRORS_KEPT_MAX
from db.operations import MATCHES, REPLAYED, Filter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

# The fence starts anew with the row: whatever a late delivery of the dead job still does, one of
# them turns it, and only one.
REPLAY: Final = """
    UPDATE jobs
    SET state = 'queued', attempts = 0, result = NULL, finished_at = NULL, dispatched_at = NULL,
        run_at = clock_timestamp(),
        errors = CASE WHEN jsonb_array_length(errors) < :errors_max THEN errors ELSE errors - 0 END
          || jsonb_build_array(CAST(:note AS jsonb)
               || jsonb_build_object('try', attempts, 'at', clock_timestamp()))
    WHERE id IN ({which}) AND state = 'dead'
    RETURNING id, redis_id, kind, payload, run_at, enqueued_at
"""

# What dies again during a replay of many has a later end, and is not replayed a second time.
REPLAY_BATCH = text(
    REPLAY.format(
        which=f"""
        SELECT id FROM jobs WHERE {MATCHES} AND state = 'dead' AND finished_at < :until
        ORDER BY finished_at, id LIMIT :limit FOR UPDATE SKIP LOCKED"""  # noqa: S608 - our own
    )
)
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


async def replay_these(
    session: "AsyncSession", ids: "Sequence[UUID]", note: str
) -> "Sequence[Unsent]":
    """Put dead jobs back into the queue, their attempts renewed; return those that were dead."""
    rows = await session.execute(REPLAY_THESE, {"ids": list(ids), **_entry(note)})
    return [Unsent(*row) for row in rows]


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
    """Cancel up to `limit` queued jobs; those that run from the record are passed over."""
    which = replace(which, state="queued")
    query = {**which.as_parameters(), "reason": reason, "limit": limit}
    rows = await session.execute(CANCEL_BATCH, query)
    return {row.id: row.redis_id or str(row.id) for row in rows}


def _entry(note: str) -> dict[str, object]:
    entry = {"error": REPLAYED, "message": note, "sqlstate": None}
    return {"note": orjson.dumps(entry).decode(), "errors_max": ERRORS_KEPT_MAX}
