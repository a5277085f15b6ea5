"""Moves what the loop has set aside, because it cannot be a job, from Redis into the record.

There it is a dead job of kind `malformed`, with the beginning of its bytes: `jobs list` shows it.
Each entry is written and removed for itself, so that one that cannot be written stops no other.
"""

import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid5

from redis.exceptions import RedisError

from db.errors import Trouble, diagnose
from db.quarantine import keep
from jobs._wire import JOB_ID_NAMESPACE, job_id_of
from worker.loop import quarantine

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.loop.quarantine import Entry
    from worker.monitoring.events import Events
    from worker.monitoring.state import WorkerState

BATCH_MAX: Final = 100
"""Entries in one round."""
PAUSE_S: Final = 5.0
REASON_CHARACTERS_MAX: Final = 500


class Quarantine:
    """One process's quarantine of one queue, a background duty."""

    name = "quarantine"
    step_timeout_s = 30.0

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        redis: "Redis",
        queue_name: str,
        events: "Events",
        state: "WorkerState",
    ) -> None:
        self._sessions = sessions
        self._redis = redis
        self._queue_name = queue_name
        self._events = events
        self._state = state
        self._refused: set[str] = set()
        """What the record did not take: read again when there is nothing else."""

    async def step(self) -> float:
        """Move some entries, and return the seconds until the next round."""
        try:
            entries = await self._read()
            kept = [entry for entry in entries if await self._keep(entry)]
            count, _ = await quarantine.count(self._redis, self._queue_name)
            self._state.quarantined_of[self._queue_name] = count
        except (RedisError, OSError) as error:
            if diagnose(error).trouble is Trouble.CONNECTION:
                raise
            return PAUSE_S  # what Redis has can wait for it; the relay reports that it is away
        return 0.0 if len(entries) >= BATCH_MAX and kept else PAUSE_S

    async def _read(self) -> "list[Entry]":
        """Return a batch of entries; those that were refused stand in nobody's way."""
        limit = BATCH_MAX + len(self._refused)
        entries = await quarantine.read(self._redis, self._queue_name, limit)
        others = [entry for entry in entries if entry.field not in self._refused]
        if not others:
            self._refused.clear()
        return others[:BATCH_MAX]

    async def _keep(self, entry: "Entry") -> bool:
        """Write one entry into the record and remove it; False if it is refused, and stays."""
        redis_id, job_id = _ids_of(entry)
        reason = _clean(entry.reason)[:REASON_CHARACTERS_MAX]
        try:
            async with self._sessions() as session, session.begin():
                await keep(session, job_id, redis_id=redis_id, reason=reason, found=found_in(entry))
        except Exception as error:
            if diagnose(error).trouble is not Trouble.FAILURE:
                raise
            self._events.emit("queue.quarantined", job_id=str(job_id), error=type(error).__name__)
            self._refused.add(entry.field)
            return False
        await quarantine.remove(self._redis, self._queue_name, [entry])
        self._events.emit("queue.quarantined", job_id=str(job_id), error=None)
        return True


def _ids_of(entry: "Entry") -> tuple[str | None, UUID]:
    """Return an entry's id in the queue, if it is text and whole, and its id in the record."""
    with suppress(UnicodeDecodeError):
        if entry.has_whole_id:
            redis_id = entry.job_id.decode()
            return _clean(redis_id), job_id_of(redis_id)
    return None, uuid5(JOB_ID_NAMESPACE, f"quarantine:{entry.field}")


def found_in(entry: "Entry") -> dict[str, Any]:
    """Return what was set aside, as JSON that PostgreSQL can keep."""
    return {
        "id": _text_or_base64(entry.job_id),
        "body": _text_or_base64(entry.body),
        "body_type": _clean(entry.body_type),
        "body_bytes": entry.body_size,
        "set_aside_at_ms": entry.at_ms,
    }


def _text_or_base64(found: bytes) -> dict[str, str]:
    try:
        return {"text": found.decode()} if b"\x00" not in found else _base64(found)
    except UnicodeDecodeError:
        return _base64(found)


def _base64(found: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(found).decode()}


def _clean(found: str) -> str:
    """Return a text without what PostgreSQL cannot keep."""
    return found.replace("\x00", "\ufffd").encode(errors="replace").decode()
