"""Retention: finished jobs of the kinds that declare `kept_for`, deleted in batches.

To delete a job is to forget its id and key: a caller who sends the same one again gets a new job.
So a job is kept forever unless its kind declares otherwise, and some are kept whatever their kind
declares: those that meet the condition which `db/store.py` passes.

A job is marked purgeable when it finishes, by the policy of its kind at that time. Jobs that
completed and are kept forever are therefore in no index of retention's and cost it nothing; an
index over all finished jobs would add 85 bytes of WAL to the 407 that finalizing one writes.
"""

from functools import cache
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db.models import PURGEABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from sqlalchemy import TextClause
    from sqlalchemy.ext.asyncio import AsyncSession

BATCH_ROWS: Final = 1_000


# Those that no job follows; the others are deleted with it.
FORGET_BATCHES = text("""
    DELETE FROM batches
    WHERE (cancelled_at < now() - interval '1 day'
           OR (fired_at < now() - interval '1 day' AND then_kind IS NULL))
      AND NOT EXISTS (SELECT FROM jobs WHERE jobs.batch_id = batches.id)
""")


class Retention:
    """Deletes old jobs in one session's transaction.

    Args:
        session: the transaction.
        kept: a condition in SQL on `jobs`; rows that meet it are never deleted.
    """

    def __init__(self, session: "AsyncSession", *, kept: str = "false") -> None:
        self._session = session
        self._purge = purge_statement(kept)

    async def purge(self, kept_for: "Mapping[str, timedelta]", rows_max: int) -> dict[str, int]:
        """Delete final jobs, dead ones excepted, oldest first.

        Args:
            kept_for: by kind, how long a finished job stays.
            rows_max: jobs deleted at most.

        Returns:
            How many were deleted, by kind.
        """
        deleted: dict[str, int] = {}
        left = rows_max
        for kind, kept in sorted(kept_for.items()):
            while left > 0:
                batch = min(left, BATCH_ROWS)
                gone: int = await self._session.scalar(
                    self._purge, {"kind": kind, "kept_for": kept, "batch": batch}
                )
                deleted[kind] = deleted.get(kind, 0) + gone
                left -= gone
                if gone < batch:
                    break
        await self._session.execute(FORGET_BATCHES)
        return deleted


@cache
def purge_statement(kept: str) -> "TextClause":
    """Return the deletion of one batch of one kind; `kept` says which rows stay whatever happens.

    Rows locked by another transaction are left for the next round, and so are the members of a
    batch that is open. Occurrences are deleted with their jobs, and a batch with the job that
    followed it.
    """
    return text(f"""
        WITH old AS (
          SELECT id FROM jobs
          WHERE kind = :kind AND finished_at < now() - CAST(:kept_for AS interval)
            AND ({PURGEABLE}) AND state <> 'dead' AND NOT ({kept})
          AND (batch_id IS NULL OR NOT EXISTS (
            SELECT FROM batches
            WHERE batches.id = jobs.batch_id AND fired_at IS NULL AND cancelled_at IS NULL))
          ORDER BY finished_at LIMIT :batch
          FOR UPDATE SKIP LOCKED
        ), deleted AS (
          DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING jobs.id
        ), forgotten AS (
          DELETE FROM batches USING deleted WHERE batches.then_id = deleted.id
        )
        SELECT count(*) FROM deleted
    """)  # noqa: S608 - conditions from this code, never from a caller
