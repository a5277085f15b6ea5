"""The endpoints of webhooks: who hears of the ends of jobs, signed with what, and how it goes."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

SECRETS_MAX: Final = 3
"""The newest are kept: a secret stops being used two rotations after it was made."""

ADD = text("""
    INSERT INTO webhook_endpoints (name, url, secrets) VALUES (:name, :url, ARRAY[:secret])
    ON CONFLICT (name) DO NOTHING RETURNING 1
""")

ROTATE = text("""
    UPDATE webhook_endpoints
    SET secrets = (CAST(:secret AS text) || secrets)[1 : CAST(:kept AS integer)]
    WHERE name = :name RETURNING 1
""")

ENABLE = text("""
    UPDATE webhook_endpoints
    SET disabled_at = NULL, disabled_because = NULL, failing_since = NULL
    WHERE name = :name RETURNING 1
""")

DISABLE = text("""
    UPDATE webhook_endpoints SET disabled_at = clock_timestamp(), disabled_because = :reason
    WHERE name = :name AND disabled_at IS NULL RETURNING 1
""")

REMOVE = text("DELETE FROM webhook_endpoints WHERE name = :name RETURNING 1")

LIST = text("""
    SELECT name, url, cardinality(secrets) AS secrets, created_at, failing_since, disabled_at,
           disabled_because,
           (SELECT count(*) FROM (
              SELECT FROM jobs WHERE kind = 'deliver_webhook' AND state = 'queued'
                AND payload->>'endpoint' = name LIMIT :counted) AS waiting) AS waiting
    FROM webhook_endpoints ORDER BY name
""")

# The job's row may be gone, or queued again: then its result is not what was announced.
FIND = text("""
    SELECT e.url, e.secrets, e.disabled_because, j.key, j.result
    FROM webhook_endpoints AS e
    LEFT JOIN jobs AS j ON j.id = :job_id AND j.state = :state
    WHERE e.name = :name
""")

SUCCEEDED = text("""
    UPDATE webhook_endpoints SET failing_since = NULL
    WHERE name = :name AND failing_since IS NOT NULL
""")

# Disabled by the failure that is later than `limit` after the first of an unbroken row of them.
FAILED = text("""
    UPDATE webhook_endpoints
    SET failing_since = coalesce(failing_since, clock_timestamp()),
        disabled_at = CASE WHEN failing_since < clock_timestamp() - CAST(:limit AS interval)
                           THEN clock_timestamp() END,
        disabled_because = CASE WHEN failing_since < clock_timestamp() - CAST(:limit AS interval)
                                THEN :reason END
    WHERE name = :name AND disabled_at IS NULL
""")

WAITING_COUNTED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Destination:
    """Where one announcement goes, and what it says of the job besides its end."""

    url: str
    secrets: tuple[str, ...]
    disabled_because: str | None
    """Why nothing is delivered there any more."""
    key: str | None
    result: Any


@dataclass(frozen=True, slots=True)
class EndpointSummary:
    """An endpoint as an operator sees it; no secret."""

    name: str
    url: str
    secrets: int
    created_at: datetime
    failing_since: datetime | None
    disabled_at: datetime | None
    disabled_because: str | None
    waiting: int
    """Deliveries not yet made, counted up to `WAITING_COUNTED_MAX`."""


class Endpoints:
    """The endpoints as an operator sees and changes them, in one session's transaction."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def add(self, name: str, url: str, secret: str) -> bool:
        """Add an endpoint; False when there is one of that name."""
        return await self._changes(ADD, name=name, url=url, secret=secret)

    async def rotate(self, name: str, secret: str) -> bool:
        """Sign with one more secret, and keep the newest; False when there is no such endpoint."""
        return await self._changes(ROTATE, name=name, secret=secret, kept=SECRETS_MAX)

    async def enable(self, name: str) -> bool:
        """Deliver there again, as if nothing had failed; False when there is no such endpoint."""
        return await self._changes(ENABLE, name=name)

    async def disable(self, name: str, reason: str) -> bool:
        """Deliver there no more; False when it was so, or there is no such endpoint."""
        return await self._changes(DISABLE, name=name, reason=reason)

    async def remove(self, name: str) -> bool:
        """Forget an endpoint; what still waits to be delivered there is cancelled when it runs."""
        return await self._changes(REMOVE, name=name)

    async def list(self) -> list[EndpointSummary]:
        """Return every endpoint, by name."""
        rows = await self._session.execute(LIST, {"counted": WAITING_COUNTED_MAX})
        return [EndpointSummary(*row) for row in rows]

    async def _changes(self, statement: Any, **values: Any) -> bool:  # noqa: ANN401 - SQL's values
        return await self._session.scalar(statement, values) is not None


class Deliveries:
    """The endpoints as their deliveries need them: each call has a short transaction of its own.

    A delivery holds none while it waits for the receiver.
    """

    def __init__(self, sessions: "async_sessionmaker[AsyncSession]") -> None:
        self._sessions = sessions

    async def find(self, name: str, job_id: UUID, state: str) -> Destination | None:
        """Return where the end of a job is to be told; None when there is no such endpoint."""
        query = {"name": name, "job_id": job_id, "state": state}
        async with self._sessions() as session:
            row = (await session.execute(FIND, query)).one_or_none()
        if row is None:
            return None
        return Destination(row.url, tuple(row.secrets), row.disabled_because, row.key, row.result)

    async def note_success(self, name: str) -> None:
        """Note that a delivery has arrived."""
        async with self._sessions.begin() as session:
            await session.execute(SUCCEEDED, {"name": name})

    async def note_failure(self, name: str, limit: timedelta) -> None:
        """Note that a delivery failed; the endpoint is disabled if that has gone on too long.

        Args:
            name: the endpoint's.
            limit: for how long deliveries may fail in a row.
        """
        reason = f"deliveries have failed for more than {limit}"
        async with self._sessions.begin() as session:
            await session.execute(FAILED, {"name": name, "limit": limit, "reason": reason})

    async def disable(self, name: str, reason: str) -> None:
        """Deliver there no more."""
        async with self._sessions.begin() as session:
            await session.execute(DISABLE, {"name": name, "reason": reason})
