"""The rows of jobs that run: look up, finalize once, note a failure, postpone."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import orjson
from sqlalchemy import text

from db.statements import clean
from db.transaction import driver_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

State = Literal["queued", "completed", "rejected", "dead", "cancelled"]
FinalState = Literal["completed", "rejected", "dead", "cancelled"]

ERRORS_KEPT_MAX: Final = 25


@dataclass(frozen=True, slots=True)
class JobRef:
    """What identifies a job's row, and what the row is made of if there is none yet."""

    id: UUID
    kind: str
    payload_json: str
    enqueued_at: datetime
    redis_id: str | None = None
    """The id a Redis client chose, where it is not the row's own."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What a job's row was made with."""

    payload: Any
    enqueued_at: datetime


@dataclass(frozen=True, slots=True)
class Stored:
    """A job's row."""

    id: UUID
    kind: str
    state: State
    payload: Any
    result: Any
    attempts: int
    same_payload: bool
    """Whether the row's payload is the delivered one."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed try, as the job's row keeps it: no payload values, no names, no addresses."""

    error: str
    message: str
    sqlstate: str | None = None

    def as_json(self, try_number: int, at: datetime) -> dict[str, Any]:
        """Return the entry of the row's `errors`."""
        return {
            "try": try_number,
            "at": at.isoformat(),
            "error": self.error,
            "message": self.message,
            "sqlstate": self.sqlstate,
        }


# The fence. No row changes when the job is final already, or when the row holds another payload:
# then another delivery was first, and the transaction of this one must roll back.
FINISH: Final = clean("""
    INSERT INTO jobs AS j (id, kind, payload, state, result, enqueued_at, run_at,
                           finished_at, redis_id, purgeable)
    VALUES ($1, $2, $3::jsonb, $4, $5::jsonb, $6, $6,
            clock_timestamp(), $7, $8)
    ON CONFLICT (id) DO UPDATE
    SET state = excluded.state, result = excluded.result, finished_at = excluded.finished_at,
        purgeable = excluded.purgeable
    WHERE j.state = 'queued' AND j.kind = excluded.kind AND j.payload = excluded.payload
    RETURNING 1
""")

FIND = text("""
    SELECT id, kind, state, payload, result, attempts,
           kind = :kind AND payload = CAST(:payload AS jsonb) AS same_payload
    FROM jobs WHERE id = :id
""")

HOLD = text("""
    SELECT 1 FROM jobs WHERE id = :id AND state = 'queued' FOR UPDATE SKIP LOCKED
""")

CANCEL = text("SELECT cancel_job(:id, :reason)")

# Another version registered its schema here, and it takes what ours refuses.
FITS_ANOTHER_VERSION = text("""
    SELECT payload_schema <> CAST(:schema AS jsonb)
       AND schema_fault(payload_schema, CAST(:payload AS jsonb), 'payload', payload_schema) IS NULL
    FROM job_kinds WHERE kind = :kind
""")

TRACEPARENT = text("SELECT traceparent FROM jobs WHERE id = :id")

FIND_PAYLOAD = text("SELECT payload, enqueued_at FROM jobs WHERE id = :id")

NOTE_FAILURE = text("""
    INSERT INTO jobs AS j (id, kind, payload, state, errors, attempts, enqueued_at,
                           run_at, finished_at, redis_id)
    VALUES (:id, :kind, CAST(:payload AS jsonb), :state,
            jsonb_build_array(CAST(:error AS jsonb)), :spent, :enqueued_at,
            clock_timestamp() + :delay,
            CASE :state WHEN 'queued' THEN NULL ELSE clock_timestamp() END, :redis_id)
    ON CONFLICT (id) DO UPDATE
    SET state = excluded.state,
        errors = CASE WHEN jsonb_array_length(j.errors) < :errors_max THEN j.errors
                      ELSE j.errors - 0 END || excluded.errors,
        attempts = j.attempts + excluded.attempts,
        run_at = excluded.run_at,
        finished_at = excluded.finished_at
    WHERE j.state = 'queued' AND j.kind = excluded.kind AND j.payload = excluded.payload
    RETURNING 1
""")

POSTPONE = text("""
    INSERT INTO jobs AS j (id, kind, payload, enqueued_at, run_at, redis_id)
    VALUES (:id, :kind, CAST(:payload AS jsonb),
            :enqueued_at, clock_timestamp() + :delay, :redis_id)
    ON CONFLICT (id) DO UPDATE SET run_at = excluded.run_at
    WHERE j.state = 'queued' AND j.kind = excluded.kind AND j.payload = excluded.payload
    RETURNING 1
""")


class Record:
    """The jobs' rows, as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def finish(
        self, job: JobRef, state: FinalState, result: object, *, purgeable: bool = False
    ) -> bool:
        """Finalize the job: from this commit on it has this state and this result.

        Args:
            job: the job as it was delivered.
            state: its final state.
            result: what its caller gets.
            purgeable: whether retention may delete the row, once it is old enough.

        Returns:
            False when it was final before, or its row holds another payload. Roll back then.
        """
        stored = None if result is None else orjson.dumps(result).decode()
        row = (job.id, job.kind, job.payload_json, state, stored, job.enqueued_at, job.redis_id)
        driver = await driver_of(self._session)
        return await driver.fetchval(FINISH, *row, purgeable) is not None

    async def find(self, job: JobRef) -> Stored | None:
        """Return what is stored under the job's id, or None."""
        query = {"id": job.id, "kind": job.kind, "payload": job.payload_json}
        row = (await self._session.execute(FIND, query)).one_or_none()
        return None if row is None else Stored(**row._mapping)  # noqa: SLF001 - SQLAlchemy's name

    async def find_payload(self, job_id: UUID) -> Accepted | None:
        """Return the payload and time of acceptance of a job that came by its id alone."""
        row = (await self._session.execute(FIND_PAYLOAD, {"id": job_id})).one_or_none()
        return None if row is None else Accepted(row.payload, row.enqueued_at)

    async def traceparent(self, job_id: UUID) -> str | None:
        """Return the trace context (W3C) that the job's caller sent, or None."""
        context: str | None = await self._session.scalar(TRACEPARENT, {"id": job_id})
        return context

    async def fits_another_version(self, job: JobRef, schema: str) -> bool:
        """Return whether the schema in the database is not ours, and takes this payload."""
        query = {"kind": job.kind, "payload": job.payload_json, "schema": schema}
        return bool(await self._session.scalar(FITS_ANOTHER_VERSION, query))

    async def note_failure(
        self,
        job: JobRef,
        error: dict[str, Any],
        *,
        state: Literal["queued", "dead"],
        spent: int,
        delay: timedelta,
    ) -> bool:
        """Append an error, and either put the job back for `delay` or mark it dead.

        Args:
            job: the job as it was delivered.
            error: see `Failure.as_json`; the newest `ERRORS_KEPT_MAX` are kept.
            state: what becomes of the job.
            spent: attempts this failure uses up, 0 or 1.
            delay: until the next try.

        Returns:
            False when the job is final already, or its row holds another payload.
        """
        note = {
            **_row(job),
            "error": orjson.dumps(error).decode(),
            "errors_max": ERRORS_KEPT_MAX,
            "state": state,
            "spent": spent,
            "delay": delay,
        }
        return await self._session.scalar(NOTE_FAILURE, note) is not None

    async def hold(self, job_id: UUID) -> bool:
        """Lock a queued job's row until the transaction ends; False when another worker has it."""
        return await self._session.scalar(HOLD, {"id": job_id}) is not None

    async def cancel(self, job_id: UUID, reason: str) -> bool:
        """Make a queued job cancelled; False when it is final already, or has no row."""
        return bool(await self._session.scalar(CANCEL, {"id": job_id, "reason": reason}))

    async def postpone(self, job: JobRef, delay: timedelta) -> bool:
        """Move the job's next run `delay` from now; False when it is final or another's."""
        return await self._session.scalar(POSTPONE, {**_row(job), "delay": delay}) is not None


def _row(job: JobRef) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "payload": job.payload_json,
        "enqueued_at": job.enqueued_at,
        "redis_id": job.redis_id,
    }
