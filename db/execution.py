"""The rows of jobs that run: look up, open, finalize once, put back or mark dead, cancel."""

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
RESULT_BYTES_MAX: Final = 1_048_576
"""Of the result as JSON: it is kept in the job's row, and in Redis beside the payload."""


class ResultTooLargeError(ValueError):
    """A job's result is too large to be kept with the job and sent to its callers."""


@dataclass(frozen=True, slots=True)
class JobRef:
    """What identifies a job's row, and what the row is made of if there is none yet."""

    id: UUID
    kind: str
    payload_json: str
    enqueued_at: datetime
    redis_id: str | None = None
    """The id a Redis client chose, where it is not the row's own."""
    queue: str = "default"
    """The queue that it came from, by name: where it runs again."""
    slices: int = 0
    """How many slices of it took effect before this run; each run's end is bound to its own."""


@dataclass(frozen=True, slots=True)
class Standing:
    """A queued job's ledger of retries, by cause; a new job's is empty."""

    attempts: int = 0
    """Failures of its own."""
    conflicts: int = 0
    """Times it was put back in a row for locks, conflicts and slow statements."""
    blocked_by: str | None = None
    """What it waits for: `newer_worker`, or `environment:` and a SQLSTATE."""
    blocked_s: float = 0.0
    """Seconds since it was first blocked, by the server's clock."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A job's row."""

    id: UUID
    kind: str
    state: State
    payload_json: str
    """PostgreSQL's own text: read by Python and written again, its numbers might be others."""
    result: Any
    enqueued_at: datetime
    crashes: int
    """Processes that died while they ran it, in a row."""
    waits: timedelta
    """Until it is due, by the server's clock; not positive where it is."""
    is_leased: bool
    """Whether a worker runs it from this row; then `crashes` counts this run, too."""
    standing: Standing
    slices: int
    """How many slices of it took effect."""
    cursor: Any
    """Where the next slice begins."""
    is_expired: bool
    """Whether it is not wanted any more, and has not begun."""
    same_payload: bool
    """Whether its kind and payload are the delivered ones; numbers are compared by value."""


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


# The fence. No row changes when the job is final already, when the row holds another payload, or
# when the slice that this run began from is over: then another delivery was first, and the
# transaction of this one must roll back.
FINISH: Final = clean("""
    INSERT INTO jobs AS j (id, kind, payload, state, result, enqueued_at, run_at,
                           finished_at, redis_id, queue, purgeable, slices, payload_check)
    VALUES ($1, $2, $3::jsonb, $4, $5::jsonb, $6, $6,
            clock_timestamp(), $7, $8, $9, $10, hashtextextended($3::jsonb::text, 0))
    ON CONFLICT (id) DO UPDATE
    SET state = excluded.state, result = excluded.result, finished_at = excluded.finished_at,
        purgeable = excluded.purgeable, conflicts = 0, crashes = 0, blocked_since = NULL,
        blocked_by = NULL, leased_by = NULL
    WHERE j.state = 'queued' AND j.kind = excluded.kind AND j.payload = excluded.payload
      AND j.slices = excluded.slices
    RETURNING 1
""")

FIND = text("""
    SELECT id, kind, state, CAST(payload AS text) AS payload_json, result, enqueued_at, crashes,
           leased_by IS NOT NULL AS is_leased, attempts, conflicts, blocked_by,
           run_at - clock_timestamp() AS waits,
           CASE WHEN blocked_by IS NULL OR blocked_by = 'paused' THEN CAST(0 AS float8)
                ELSE CAST(extract(epoch FROM clock_timestamp() - blocked_since) AS float8)
           END AS blocked_s,
           slices, cursor,
           -- A lease counts itself until it ends.
           state = 'queued' AND crashes <= CAST(leased_by IS NOT NULL AS integer)
             AND coalesce(expires_at <= clock_timestamp(), false) AS is_expired,
           kind = :kind AND payload = CAST(:payload AS jsonb) AS same_payload
    FROM jobs WHERE id = :id
""")

# The queue has it: that is where it came from.
OPEN = text("""
    INSERT INTO jobs (id, kind, payload, queue, enqueued_at, run_at, dispatched_at, redis_id,
                      expires_at)
    VALUES (:id, :kind, CAST(:payload AS jsonb), :queue, :enqueued_at, clock_timestamp(),
            clock_timestamp(), :redis_id,
            clock_timestamp() + CAST(:expires_in AS interval))
    ON CONFLICT (id) DO NOTHING
""")

COUNT_CRASHES = text("""
    UPDATE jobs SET crashes = greatest(crashes, :crashes) WHERE id = :id AND state = 'queued'
""")

CANCEL = text("SELECT cancel_job(:id, :reason)")

# Every later delivery meets it.
TOMBSTONE = text("""
    INSERT INTO jobs (id, kind, payload, queue, state, result, enqueued_at, run_at, finished_at,
                      redis_id)
    VALUES (:id, :kind, CAST(:payload AS jsonb), :queue, 'cancelled',
            jsonb_build_object('reason', CAST(:reason AS text)), :enqueued_at, :enqueued_at,
            clock_timestamp(), :redis_id)
    ON CONFLICT (id) DO NOTHING
    RETURNING 1
""")

# Another version registered its schema here, and it takes what ours refuses.
FITS_ANOTHER_VERSION = text("""
    SELECT payload_schema <> CAST(:schema AS jsonb)
       AND schema_fault(payload_schema, CAST(:payload AS jsonb), 'payload', payload_schema) IS NULL
    FROM job_kinds WHERE kind = :kind
""")

# `blocked_since` is when the job was first blocked, whatever blocks it now.
NOTE = text("""
    INSERT INTO jobs AS j (id, kind, payload, queue, state, errors, attempts, conflicts,
                           blocked_since, blocked_by, enqueued_at, run_at, dispatched_at,
                           finished_at, redis_id)
    VALUES (:id, :kind, CAST(:payload AS jsonb), :queue, :state, CAST(:errors AS jsonb), :attempts,
            :conflicts, CASE WHEN CAST(:blocked_by AS text) IS NULL THEN NULL
                             ELSE clock_timestamp() END,
            :blocked_by, :enqueued_at, clock_timestamp() + :delay, clock_timestamp(),
            CASE :state WHEN 'queued' THEN NULL ELSE clock_timestamp() END, :redis_id)
    ON CONFLICT (id) DO UPDATE
    SET state = excluded.state,
        errors = CASE WHEN jsonb_array_length(j.errors) + jsonb_array_length(excluded.errors)
                           <= :errors_max
                      THEN j.errors ELSE j.errors - 0 END || excluded.errors,
        attempts = excluded.attempts, conflicts = excluded.conflicts, crashes = 0,
        blocked_by = excluded.blocked_by,
        blocked_since = CASE WHEN excluded.blocked_by IS NULL THEN NULL
                             ELSE coalesce(j.blocked_since, excluded.blocked_since) END,
        leased_by = NULL, run_at = excluded.run_at, finished_at = excluded.finished_at,
        expires_at = CASE WHEN excluded.blocked_by = 'newer_worker' THEN j.expires_at END
    WHERE j.state = 'queued' AND j.slices = :slices
    RETURNING 1
""")

POSTPONE = text("""
    INSERT INTO jobs AS j (id, kind, payload, queue, enqueued_at, run_at, dispatched_at, redis_id)
    VALUES (:id, :kind, CAST(:payload AS jsonb), :queue, :enqueued_at, clock_timestamp() + :delay,
            clock_timestamp(), :redis_id)
    ON CONFLICT (id) DO UPDATE
    SET run_at = excluded.run_at, conflicts = 0, crashes = 0, blocked_since = NULL,
        blocked_by = NULL, leased_by = NULL, expires_at = NULL
    WHERE j.state = 'queued' AND j.kind = excluded.kind AND j.payload = excluded.payload
      AND j.slices = :slices
    RETURNING 1
""")

# The end of a slice: a fence like FINISH, after which the next one begins with an empty ledger.
ADVANCE = text("""
    INSERT INTO jobs AS j (id, kind, payload, enqueued_at, run_at, dispatched_at, redis_id, queue,
                           slices, cursor, progress)
    VALUES (:id, :kind, CAST(:payload AS jsonb), :enqueued_at, clock_timestamp() + :delay,
            clock_timestamp(), :redis_id, :queue, :slices + 1, CAST(:cursor AS jsonb),
            CAST(:progress AS jsonb))
    ON CONFLICT (id) DO UPDATE
    SET slices = excluded.slices, cursor = excluded.cursor,
        progress = coalesce(excluded.progress, j.progress), run_at = excluded.run_at,
        attempts = 0, conflicts = 0, crashes = 0, blocked_since = NULL, blocked_by = NULL,
        leased_by = NULL, expires_at = NULL
    WHERE j.state = 'queued' AND j.kind = excluded.kind AND j.payload = excluded.payload
      AND j.slices = :slices
    RETURNING 1
""")

TRACEPARENT = text("SELECT traceparent FROM jobs WHERE id = :id")


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
            False when it was final before, its row holds another payload, or another delivery
            ended this slice. Roll back then.

        Raises:
            ResultTooLargeError: the result does not fit.
        """
        stored = None if result is None else _bounded_json(result)
        row = (job.id, job.kind, job.payload_json, state, stored, job.enqueued_at, job.redis_id)
        driver = await driver_of(self._session)
        parameters = (*row, job.queue, purgeable, job.slices)
        return await driver.fetchval(FINISH, *parameters) is not None

    async def find(self, job: JobRef) -> Stored | None:
        """Return what is stored under the job's id, or None."""
        query = {"id": job.id, "kind": job.kind, "payload": job.payload_json}
        row = (await self._session.execute(FIND, query)).one_or_none()
        if row is None:
            return None
        standing = Standing(row.attempts, row.conflicts, row.blocked_by, row.blocked_s)
        return Stored(
            id=row.id,
            kind=row.kind,
            state=row.state,
            payload_json=row.payload_json,
            result=row.result,
            enqueued_at=row.enqueued_at,
            crashes=row.crashes,
            waits=row.waits,
            is_leased=row.is_leased,
            standing=standing,
            slices=row.slices,
            cursor=row.cursor,
            is_expired=row.is_expired,
            same_payload=row.same_payload,
        )

    async def open(self, job: JobRef, crashes: int, *, expires_in: timedelta | None = None) -> None:
        """Give the job a row before it runs.

        Args:
            job: the job as it was delivered.
            crashes: the number of processes that died under it.
            expires_in: until it is not wanted any more, if it has not begun; None: it does not
                expire.
        """
        await self._session.execute(OPEN, {**_row(job), "expires_in": expires_in})
        if crashes:
            await self._session.execute(COUNT_CRASHES, {"id": job.id, "crashes": crashes})

    async def traceparent(self, job_id: UUID) -> str | None:
        """Return the trace context (W3C) that the job's caller sent, or None."""
        context: str | None = await self._session.scalar(TRACEPARENT, {"id": job_id})
        return context

    async def fits_another_version(self, job: JobRef, schema: str) -> bool:
        """Return whether the schema in the database is not ours, and takes this payload."""
        query = {"kind": job.kind, "payload": job.payload_json, "schema": schema}
        return bool(await self._session.scalar(FITS_ANOTHER_VERSION, query))

    async def note(
        self,
        job: JobRef,
        standing: Standing,
        *,
        state: Literal["queued", "dead"],
        delay: timedelta = timedelta(),
        error: dict[str, Any] | None = None,
    ) -> bool:
        """Put the job back for `delay`, or mark it dead; its run is over either way.

        Args:
            job: the job as it was delivered; made into a row if there is none.
            standing: its ledger from now on.
            state: what becomes of the job.
            delay: until the next try.
            error: see `Failure.as_json`; the newest `ERRORS_KEPT_MAX` are kept.

        Returns:
            False when the job is final already, or another delivery ended this slice.
        """
        note = {
            **_row(job),
            "slices": job.slices,
            "state": state,
            "errors": orjson.dumps([] if error is None else [error]).decode(),
            "errors_max": ERRORS_KEPT_MAX,
            "attempts": standing.attempts,
            "conflicts": standing.conflicts,
            "blocked_by": standing.blocked_by,
            "delay": delay,
        }
        return await self._session.scalar(NOTE, note) is not None

    async def cancel(self, job: JobRef, reason: str) -> bool:
        """Make a job cancelled that is queued, or has no row yet; False when it is final already.

        Without a row it gets one: a later delivery must meet the cancellation.
        """
        if await self._session.scalar(CANCEL, {"id": job.id, "reason": reason}):
            return True
        return await self._session.scalar(TOMBSTONE, {**_row(job), "reason": reason}) is not None

    async def postpone(self, job: JobRef, delay: timedelta) -> bool:
        """Move the job's next run `delay` from now; False when it is final or another's."""
        query = {**_row(job), "delay": delay, "slices": job.slices}
        return await self._session.scalar(POSTPONE, query) is not None

    async def advance(
        self, job: JobRef, cursor_json: str, delay: timedelta, *, progress_json: str | None
    ) -> bool:
        """End a slice of the job: from this commit on, it begins at the cursor.

        Args:
            job: the job as it was delivered, with the number of its slice.
            cursor_json: where the next slice begins.
            delay: until it does.
            progress_json: how far the job has shown to be; None leaves what was shown before.

        Returns:
            False like `finish`. Roll back then.
        """
        query = {
            **_row(job),
            "slices": job.slices,
            "cursor": cursor_json,
            "delay": delay,
            "progress": progress_json,
        }
        return await self._session.scalar(ADVANCE, query) is not None


def _bounded_json(result: object) -> str:
    text = orjson.dumps(result)
    if len(text) > RESULT_BYTES_MAX:
        raise ResultTooLargeError(
            f"the result has {len(text)} bytes, more than {RESULT_BYTES_MAX}: "
            "store the bulk elsewhere and return its address"
        )
    return text.decode()


def _row(job: JobRef) -> dict[str, Any]:
    return {
        "id": job.id,
        "kind": job.kind,
        "payload": job.payload_json,
        "enqueued_at": job.enqueued_at,
        "redis_id": job.redis_id,
        "queue": job.queue,
    }
