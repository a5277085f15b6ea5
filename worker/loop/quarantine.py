"""The quarantine: what was in the queue and cannot be a job, until somebody has looked at it.

A member whose id is not UTF-8, or whose body has a type that no body has, is moved by the scripts,
in one atomic step, into the hash `<queue>:quarantine`: one field per member, bounded in number and
bytes. What comes when it is full is dropped and counted.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .scripts import QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redis.asyncio import Redis

ID_KEPT_BYTES: Final = 4_096
"""Of a longer member the beginning is kept; the scripts' own bound."""
WHOLE_MAX: Final = 2**53
"""No time and no size is beyond; a script's numbers would not be exact."""

_DROPPED: Final = "dropped"


@dataclass(frozen=True, slots=True)
class Entry:
    """One member that was set aside."""

    field: str
    """The entry's name in the hash."""
    job_id: bytes
    """The member, up to its first `ID_KEPT_BYTES` bytes."""
    reason: str
    at_ms: int
    """When it was set aside, in Unix milliseconds by Redis' clock."""
    body_type: str
    """Redis' type of the body's key; `none` where there was no body."""
    body: bytes
    """The body's first 4,096 bytes; of another type than a string, what Redis' DUMP says."""
    body_size: int
    """The bytes of the whole body, or those that Redis used for it."""

    @property
    def has_whole_id(self) -> bool:
        """Whether `job_id` is all of the member; else only `field` tells it from others."""
        return len(self.job_id) < ID_KEPT_BYTES


async def read(redis: "Redis", queue_name: str, limit: int = 100) -> list[Entry]:
    """Return some of the entries, about `limit` of them; an entry that nobody can read is removed.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    key = queue_name + QUARANTINE_SUFFIX
    entries: list[Entry] = []
    cursor = 0
    while len(entries) < limit:
        cursor, fields = await redis.hscan(key, cursor, count=limit)
        unreadable = []
        for name, value in fields.items():
            if name == _DROPPED.encode():
                continue
            try:
                entries.append(_entry(name.decode(), value))
            except (ValueError, KeyError, TypeError, RecursionError):
                unreadable.append(name)
        if unreadable:
            await redis.hdel(key, *unreadable)  # type: ignore[misc]
        if not cursor:
            break
    return entries


async def remove(redis: "Redis", queue_name: str, entries: "Iterable[Entry]") -> None:
    """Remove entries that are dealt with.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    fields = [entry.field for entry in entries]
    if fields:
        await redis.hdel(queue_name + QUARANTINE_SUFFIX, *fields)  # type: ignore[misc]


async def count(redis: "Redis", queue_name: str) -> tuple[int, int]:
    """Return how many entries there are, and how many were dropped because it was full.

    Raises:
        RedisError, OSError: Redis did not answer.
    """
    key = queue_name + QUARANTINE_SUFFIX
    async with redis.pipeline(transaction=True) as pipe:
        pipe.hlen(key)
        pipe.hget(key, _DROPPED)
        held, dropped = await pipe.execute()
    return held - (dropped is not None), int(dropped) if dropped and dropped.isdigit() else 0


def _entry(name: str, value: bytes) -> Entry:
    fields = json.loads(value)
    return Entry(
        field=name,
        job_id=bytes.fromhex(fields["id"]),
        reason=_text(fields["reason"]),
        at_ms=_whole(fields["at_ms"]),
        body_type=_text(fields["type"]),
        body=bytes.fromhex(fields["body"]),
        body_size=_whole(fields["size"]),
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("this is no text")
    return value


def _whole(value: object) -> int:
    """Return a number that a script wrote, as one or as text."""
    if isinstance(value, float) or not 0 <= (number := int(value)) <= WHOLE_MAX:  # type: ignore[call-overload]
        raise ValueError("this is no whole number, or an absurd one")
    return int(number)
