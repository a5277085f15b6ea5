"""Accepting jobs for callers that hold a session: one statement for one job or thousands."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import orjson
from sqlalchemy import text

from db.statements import clean
from db.transaction import driver_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import timedelta

    from sqlalchemy.ext.asyncio import AsyncSession

LIVE_PAYLOADS_PER_FETCH: Final = 1_000


@dataclass(frozen=True, slots=True)
class Candidate:
    """A job to be accepted."""

    kind: str
    payload_json: str
    key: str | None = None
    run_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a candidate: a job's id, or the fault that kept it out."""

    id: UUID | None
    created: bool | None
    """Whether this candidate created the job; False where it was already accepted."""
    fault: str | None
    """TL001 unknown kind, TL002 invalid payload, TL003 key conflict, TL004 invalid key,
    TL005 invalid run_at."""
    message: str | None
    hint: str | None
    """What to do about it."""
    queue: str | None
    """The queue that the job waits in."""


# `try_enqueue_job` returns a refusal instead of raising it, so one bad candidate spoils none of the
# others. Text that jsonb cannot hold becomes NULL here, which is refused too.
TRY_ENQUEUE: Final = text("""
    SELECT answer.id, answer.created, answer.fault, answer.message, answer.hint,
           answer.queue
    FROM unnest(CAST(:kinds AS text[]), CAST(:payloads AS text[]), CAST(:keys AS text[]),
                CAST(:run_ats AS timestamptz[]))
      WITH ORDINALITY AS candidate (kind, payload, key, run_at, position)
    CROSS JOIN LATERAL try_enqueue_job(
      candidate.kind,
      CASE WHEN is_json(candidate.payload) THEN candidate.payload::jsonb END,
      candidate.key, candidate.run_at, NULL, NULL) AS answer
    ORDER BY candidate.position
""")

LIVE: Final = text("SELECT id, kind, payload FROM jobs WHERE state = 'queued'")


async def accept(session: "AsyncSession", candidate: Candidate) -> Verdict:
    """Accept one job in the session's transaction, or return why not."""
    return (await accept_many(session, [candidate]))[0]


async def accept_many(session: "AsyncSession", candidates: "Sequence[Candidate]") -> list[Verdict]:
    """Accept jobs in one statement of the session's transaction; verdicts in the same order.

    Safe to repeat for candidates with keys. Two callers with the same keys in different orders
    can deadlock (40P01): roll back and repeat.
    """
    rows = await session.execute(
        TRY_ENQUEUE,
        {
            "kinds": [candidate.kind for candidate in candidates],
            "payloads": [candidate.payload_json for candidate in candidates],
            "keys": [candidate.key for candidate in candidates],
            "run_ats": [candidate.run_at for candidate in candidates],
        },
    )
    return [Verdict(*row) for row in rows]


ENQUEUE_FOLLOW_UPS: Final = clean("SELECT id, run_at, queue FROM enqueue_follow_ups($1, $2::jsonb)")


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A job that a running job enqueues."""

    id: UUID
    kind: str
    payload_json: str
    key: str | None = None
    run_at: datetime | None = None
    delay: "timedelta | None" = None
    """From when it is accepted, by the server's clock."""
    traceparent: str | None = None
    in_batch: bool = False
    """Whether it joins the running job's own batch."""

    def as_json(self) -> dict[str, Any]:
        """Return what the SQL function `enqueue_follow_ups` takes."""
        return {
            "id": self.id,
            "kind": self.kind,
            "payload": orjson.Fragment(self.payload_json),
            "key": self.key,
            "run_at": self.run_at,
            "delay": None if self.delay is None else self.delay.total_seconds(),
            "traceparent": self.traceparent,
            "in_batch": self.in_batch,
        }


@dataclass(frozen=True, slots=True)
class Accepted:
    """A follow-up that is a new job."""

    id: UUID
    run_at: datetime | None
    """None for now."""
    queue: str


async def accept_follow_ups(
    session: "AsyncSession", parent: UUID, follow_ups: "Sequence[FollowUp]"
) -> "dict[UUID, Accepted]":
    """Accept what a running job enqueues, in its own transaction and in one statement.

    Returns:
        Those that are new, by id. Where a key is taken, the job that has it stands.

    Raises:
        asyncpg.PostgresError: one is refused; its SQLSTATE is a fault of `Verdict`.
    """
    driver = await driver_of(session)
    wanted = orjson.dumps([one.as_json() for one in follow_ups]).decode()
    rows = await driver.fetch(ENQUEUE_FOLLOW_UPS, parent, wanted)
    return {row["id"]: Accepted(*row) for row in rows}


OPEN_BATCH: Final = clean("SELECT id, run_at, queue FROM open_batch_in_job($1, $2::jsonb)")


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch that a running job opens."""

    id: UUID
    members: "Sequence[FollowUp]"
    then_kind: str | None
    then_payload_json: str | None
    then_notify: str | None
    key: str | None
    on_dead: str
    traceparent: str | None

    def as_json(self) -> dict[str, Any]:
        """Return what the SQL function `open_batch_in_job` takes."""
        payload_json = self.then_payload_json
        return {
            "id": self.id,
            "members": [one.as_json() for one in self.members],
            "then_kind": self.then_kind,
            "then_payload": None if payload_json is None else orjson.Fragment(payload_json),
            "then_notify": self.then_notify,
            "key": self.key,
            "on_dead": self.on_dead,
            "traceparent": self.traceparent,
        }


async def accept_batch(
    session: "AsyncSession", parent: UUID, batch: NewBatch
) -> "dict[UUID, Accepted]":
    """Open a batch in a running job's transaction, by one statement; see `accept_follow_ups`."""
    driver = await driver_of(session)
    rows = await driver.fetch(OPEN_BATCH, parent, orjson.dumps(batch.as_json()).decode())
    return {row["id"]: Accepted(*row) for row in rows}


@dataclass(frozen=True, slots=True)
class LivePayload:
    """A queued job and its stored payload."""

    id: UUID
    kind: str
    payload: Any


async def live_payloads(session: "AsyncSession") -> "AsyncIterator[LivePayload]":
    """Stream every job that is queued, in constant memory."""
    rows = await session.stream(LIVE, execution_options={"yield_per": LIVE_PAYLOADS_PER_FETCH})
    async for row in rows:
        yield LivePayload(*row)
