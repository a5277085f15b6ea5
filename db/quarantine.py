"""What was in the queue and cannot be a job, kept in the record as a dead one."""

from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

KIND: Final = "malformed"

# A job that has a row is none of the queue's to lose: its entry there is made anew by the relay.
KEEP = text("""
    INSERT INTO jobs AS j (id, kind, payload, state, errors, finished_at, redis_id)
    VALUES (:id, :kind, CAST(:payload AS jsonb), 'dead',
            jsonb_build_array(jsonb_build_object(
              'try', 0, 'at', now(), 'error', 'MalformedJob',
              'message', CAST(:reason AS text), 'sqlstate', NULL)),
            clock_timestamp(), :redis_id)
    ON CONFLICT (id) DO UPDATE SET dispatched_at = NULL WHERE j.state = 'queued'
""")


async def keep(
    session: "AsyncSession",
    job_id: UUID,
    *,
    redis_id: str | None,
    reason: str,
    found: "dict[str, Any]",
) -> None:
    """Keep a member of the queue as a dead job; one that has a row is sent to the queue again.

    Args:
        session: the caller commits.
        job_id: the job's in the record.
        redis_id: its id in the queue, where that is text.
        reason: why it cannot be a job.
        found: what was there, as JSON.
    """
    row = {"id": job_id, "kind": KIND, "redis_id": redis_id, "reason": reason}
    await session.execute(KEEP, {**row, "payload": orjson.dumps(found).decode()})
