"""The batches that are over: found, and fired once each, by whichever worker looks."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

from db.dispatch import UNSENT_COLUMNS, Unsent

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

LOCK_ID: Final = 7_311_200_003
"""The advisory lock of the one worker that looks at this moment: the others need not."""

# Ends with the transaction: behind a pooler, one of the session would stay for ever.
TRY_TO_LEAD = text("SELECT pg_try_advisory_xact_lock(:id)")

# A batch that waits costs one probe of an index, however many members it has. What is found here is
# looked at again under the lock of its row.
FIRE = text("""
    WITH over AS MATERIALIZED (
        SELECT id FROM batches
        WHERE fired_at IS NULL AND cancelled_at IS NULL
          AND NOT EXISTS (
            SELECT FROM jobs WHERE jobs.batch_id = batches.id AND jobs.state = 'queued')
          AND (on_dead = 'go_on' OR NOT EXISTS (
            SELECT FROM jobs WHERE jobs.batch_id = batches.id AND jobs.state = 'dead'))
        ORDER BY opened_at, id LIMIT :limit
    )
    SELECT id FROM over WHERE fire_batch(id)
""")

FIRED = text(f"""
    SELECT batches.id, batches.counts, batches.opened_at, batches.fired_at, {UNSENT_COLUMNS}
    FROM batches LEFT JOIN jobs ON jobs.id = batches.then_id
    WHERE batches.id = ANY(CAST(:ids AS uuid[]))
    ORDER BY batches.opened_at, batches.id
""")  # noqa: S608 - nothing but our own column names

ANY_OPEN = text("""
    SELECT EXISTS (SELECT FROM batches WHERE fired_at IS NULL AND cancelled_at IS NULL)
""")


@dataclass(frozen=True, slots=True)
class Fired:
    """A batch that was fired now."""

    id: UUID
    counts: dict[str, int]
    """Its members by state."""
    opened_at: datetime
    fired_at: datetime
    then: Unsent | None
    """The job that follows."""


class Batches:
    """The open batches, as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def try_to_lead(self) -> bool:
        """Become the one that looks until the transaction ends; False if another is it."""
        return bool(await self._session.scalar(TRY_TO_LEAD, {"id": LOCK_ID}))

    async def fire(self, limit: int) -> "Sequence[Fired]":
        """Fire up to `limit` batches that are over, the oldest first, and return them."""
        ids = list((await self._session.scalars(FIRE, {"limit": limit})).all())
        if not ids:
            return []
        rows = await self._session.execute(FIRED, {"ids": ids})
        return [_fired(*row) for row in rows]

    async def any_open(self) -> bool:
        """Return whether there is a batch that may fire some time."""
        return bool(await self._session.scalar(ANY_OPEN))


def _fired(
    batch_id: UUID,
    counts: dict[str, int],
    opened_at: datetime,
    fired_at: datetime,
    then_id: UUID | None,
    *rest: Any,  # noqa: ANN401 - the columns of a row
) -> Fired:
    then = None if then_id is None else Unsent(then_id, *rest)
    return Fired(batch_id, counts, opened_at, fired_at, then)
