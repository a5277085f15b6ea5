"""Trace contexts: where a job was asked for, in the words of W3C's `traceparent`."""

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession

TRACEPARENT = text("SELECT traceparent FROM jobs WHERE id = :id")


class Traces:
    """The trace contexts as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def traceparent(self, job_id: "UUID") -> str | None:
        """Return what the job's caller sent, or None."""
        context: str | None = await self._session.scalar(TRACEPARENT, {"id": job_id})
        return context
