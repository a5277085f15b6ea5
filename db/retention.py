"""Retention: final jobs of kinds that may be forgotten, deleted in batches.

To forget a job is to forget its id and key: the same one would run again. So the kinds that move
money or make users are never deleted, whatever anybody declares: the index and the query leave
them out, and so is every job that has a transfer, which the audit holds against it for ever.
"""

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db.models import PURGEABLE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncSession

BATCH_ROWS: Final = 1_000

# Rows that somebody holds are left for the next round. Occurrences go with their jobs.
PURGE = text(f"""
    WITH old AS (
      SELECT id FROM jobs
      WHERE kind = :kind AND finished_at < clock_timestamp() - CAST(:kept_for AS interval)
        AND {PURGEABLE}
        AND NOT EXISTS (SELECT FROM transfers t WHERE t.id = jobs.id)
      ORDER BY finished_at LIMIT :batch
      FOR UPDATE SKIP LOCKED
    ), gone AS (
      DELETE FROM jobs USING old WHERE jobs.id = old.id RETURNING 1
    )
    SELECT count(*) FROM gone
""")  # noqa: S608 - a constant of our own


class Retention:
    """What may be forgotten, as one session sees it."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

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
                    PURGE, {"kind": kind, "kept_for": kept, "batch": batch}
                )
                deleted[kind] = deleted.get(kind, 0) + gone
                left -= gone
                if gone < batch:
                    break
        return deleted
