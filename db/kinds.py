"""The kinds of job, as the database accepts them through every door."""

from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.functions import func

from db.models import JobKind

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Insert
    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class KindTerms:
    """On what terms the database accepts a kind: each is the column of `job_kinds` of its name."""

    payload_schema: dict[str, Any]
    queue: str = "default"
    """The queue that its jobs wait in."""
    unique_for: timedelta | None = None
    """For how long a job of this payload is the only one; None: without bound, several."""
    replaces: bool = False
    """Whether a newer payload takes the place of an older one of its key that has not begun."""
    expires_after: timedelta | None = None
    """How long after it could run a job is still wanted; None: for ever."""


async def register_kinds(connection: "AsyncConnection", kinds: "Mapping[str, KindTerms]") -> None:
    """Let the database accept these kinds, on these terms from now on.

    A kind that is not among them stays: older workers may still serve it.
    """
    for kind, terms in sorted(kinds.items()):
        await connection.execute(_registration(kind, terms))


def _registration(kind: str, terms: KindTerms) -> "Insert":
    """Return the statement that changes a row only where the terms are other ones."""
    columns = asdict(terms)
    statement = insert(JobKind).values(kind=kind, **columns)
    offered = {name: statement.excluded[name] for name in columns}
    stored = JobKind.__table__.c
    return statement.on_conflict_do_update(
        index_elements=[stored.kind],
        set_={**offered, "registered_at": func.clock_timestamp()},
        where=or_(*(stored[name].is_distinct_from(offered[name]) for name in columns)),
    )
