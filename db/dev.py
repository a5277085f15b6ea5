"""How a group of jobs stands, found by the prefix that their keys share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


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


COUNT = text("""
    SELECT kind, state, CASE state WHEN 'rejected' THEN result->>'code' END AS code, count(*)
    FROM jobs WHERE starts_with(key, :prefix)
    GROUP BY kind, state, code ORDER BY kind, state, code
""")

COMPLETED = text("""
    SELECT id, kind, payload, result FROM jobs
    WHERE starts_with(key, :prefix) AND state = 'completed' ORDER BY id
""")


async def tally(session: "AsyncSession", prefix: str) -> Tally:
    """Count the jobs whose keys begin with `prefix`."""
    rows = await session.execute(COUNT, {"prefix": prefix})
    return Tally([Row(*row) for row in rows])


async def completed(session: "AsyncSession", prefix: str) -> Sequence[Job]:
    """Return the completed jobs whose keys begin with `prefix`, in order of acceptance."""
    rows = await session.execute(COMPLETED, {"prefix": prefix})
    return [Job(*row) for row in rows]
