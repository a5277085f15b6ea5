"""The machine's tables: jobs, schedules, workers.

Constraints are alarms: a rule is decided by value before a constraint is reached. The migrations
create the schema (`migrations/sql/`); a test compares it with these models.
"""

from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

CONSTRAINT_NAMES: Final = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}

JOB_STATES: Final = ("queued", "completed", "rejected", "dead", "cancelled")
ON_DEAD: Final = ("go_on", "hold")
WORKER_STATES: Final = ("running", "draining", "stopped")
WORKER_MODES: Final = ("normal", "degraded")

# A job that completed and is kept forever costs nothing in retention's index.
PURGEABLE: Final = "purgeable OR state = 'cancelled'"


# What waits for the end of a pause is in none of the indexes of what could run.
NOT_PAUSED: Final = "blocked_by IS DISTINCT FROM 'paused'"


class Base(DeclarativeBase):
    """All tables; names of constraints follow one convention so that migrations can find them."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        datetime: DateTime(timezone=True),
        str: Text(),
        int: BigInteger(),
    }


def one_of(column: str, values: tuple[str, ...]) -> str:
    """Return the SQL of a check that the column has one of the values."""
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


class JobKind(Base):
    """The kinds of job this database accepts, and on what terms."""

    __tablename__ = "job_kinds"

    kind: Mapped[str] = mapped_column(primary_key=True)
    payload_schema: Mapped[dict[str, Any]] = mapped_column(JSONB)
    queue: Mapped[str] = mapped_column(server_default=text("'default'"))
    unique_for: Mapped[timedelta | None]
    """For how long after its acceptance a job is the only one of its payload."""
    replaces: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether the newest payload of a key takes the place of one that has not begun."""
    expires_after: Mapped[timedelta | None]
    """How long after it could run a job is still wanted."""
    registered_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class JobRecord(Base):
    """One row per accepted job, from its acceptance to its final outcome: the system of record."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(one_of("state", JOB_STATES), name="state"),
        CheckConstraint("(state = 'queued') = (finished_at IS NULL)", name="finished"),
        Index(
            "jobs_kind_key_key",
            "kind",
            "key",
            unique=True,
            postgresql_where=text("key IS NOT NULL"),
        ),
        Index(
            "jobs_unique_hash_key",
            "kind",
            "unique_hash",
            unique=True,
            postgresql_where=text("unique_hash IS NOT NULL"),
        ),
        Index(
            "jobs_runnable_idx",
            "queue",
            "run_at",
            "id",
            postgresql_where=text(f"state = 'queued' AND {NOT_PAUSED}"),
        ),
        Index(
            "jobs_undispatched_idx",
            "queue",
            "run_at",
            "id",
            postgresql_where=text(f"state = 'queued' AND dispatched_at IS NULL AND {NOT_PAUSED}"),
        ),
        Index(
            "jobs_dispatched_idx",
            "queue",
            text("greatest(run_at, dispatched_at)"),
            postgresql_where=text(
                f"state = 'queued' AND dispatched_at IS NOT NULL AND {NOT_PAUSED}"
            ),
        ),
        Index(
            "jobs_suspect_idx",
            "run_at",
            "id",
            postgresql_where=text(f"state = 'queued' AND crashes > 0 AND {NOT_PAUSED}"),
        ),
        Index(
            "jobs_blocked_idx",
            "blocked_by",
            "kind",
            postgresql_where=text("state = 'queued' AND blocked_by IS NOT NULL"),
        ),
        Index("jobs_batch_idx", "batch_id", "state", postgresql_where=text("batch_id IS NOT NULL")),
        Index("jobs_parent_idx", "parent_id", postgresql_where=text("parent_id IS NOT NULL")),
        Index("jobs_dead_idx", "finished_at", "id", postgresql_where=text("state = 'dead'")),
        Index("jobs_purgeable_idx", "kind", "finished_at", postgresql_where=text(PURGEABLE)),
        {"postgresql_with": {"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.02"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("new_id()"))
    kind: Mapped[str]
    key: Mapped[str | None]
    unique_hash: Mapped[int | None]
    """Of the payload, where it identifies the job as a key would."""
    payload: Mapped[Any] = mapped_column(JSONB)
    queue: Mapped[str] = mapped_column(server_default=text("'default'"))
    """By name; each has slots of its own."""
    state: Mapped[str] = mapped_column(server_default=text("'queued'"))
    result: Mapped[Any | None] = mapped_column(JSONB)
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Failures of its own, counted against its policy."""
    conflicts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """Put back in a row for locks, conflicts and slow statements."""
    crashes: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """Processes that died while they ran it, in a row."""
    blocked_since: Mapped[datetime | None]
    blocked_by: Mapped[str | None]
    """What it waits for: `newer_worker`, or `environment:` and a SQLSTATE."""
    enqueued_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    run_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    leased_by: Mapped[str | None]
    """The worker that claimed it from this row, until `run_at`."""
    dispatched_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    purgeable: Mapped[bool] = mapped_column(server_default=text("false"))
    """Whether retention may delete it: its kind declared `kept_for` when it finished."""
    redis_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    batch_id: Mapped[UUID | None]
    notify: Mapped[str | None]
    """The webhook endpoint that hears of its end."""
    payload_check: Mapped[int]
    """What the payload hashed to when the row was inserted, by a trigger."""
    parent_id: Mapped[UUID | None]
    """The job that enqueued this one while it ran; it may have been deleted since."""
    slices: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    """How many parts of it took effect, each with a `Continue`."""
    cursor: Mapped[Any | None] = mapped_column(JSONB)
    """Where the next slice begins."""
    progress: Mapped[Any | None] = mapped_column(JSONB)
    """How far it had shown to be at the end of its last slice."""
    expires_at: Mapped[datetime | None]
    """From when it is not wanted any more; None once it has begun."""


class BatchRecord(Base):
    """Jobs that belong together, and the job that follows when all of them are over."""

    __tablename__ = "batches"
    __table_args__ = (
        CheckConstraint(one_of("on_dead", ON_DEAD), name="on_dead"),
        Index(
            "batches_open_idx",
            "opened_at",
            "id",
            postgresql_where=text("fired_at IS NULL AND cancelled_at IS NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("new_id()"))
    key: Mapped[str | None] = mapped_column(unique=True)
    request_hash: Mapped[int]
    """Of what was asked for: the same key with something else is refused."""
    then_kind: Mapped[str | None]
    then_payload: Mapped[Any | None] = mapped_column(JSONB)
    then_notify: Mapped[str | None]
    """The webhook endpoint that hears of the end of the job that follows."""
    then_id: Mapped[UUID] = mapped_column(server_default=text("new_id()"), index=True)
    """The id that the job has which follows: known from the beginning."""
    on_dead: Mapped[str] = mapped_column(server_default=text("'go_on'"))
    traceparent: Mapped[str | None]
    opened_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    fired_at: Mapped[datetime | None]
    cancelled_at: Mapped[datetime | None]
    counts: Mapped[dict[str, int] | None] = mapped_column(JSONB)
    """The members by state, when it fired."""


class ScheduleMark(Base):
    """Up to when a schedule is checked: every run before was created, or dropped by its policy."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[str]
    checked_until: Mapped[datetime]
    missed: Mapped[int] = mapped_column(server_default=text("0"))


class Occurrence(Base):
    """One run of a schedule, written in the transaction that accepts its job."""

    __tablename__ = "occurrences"

    schedule: Mapped[str] = mapped_column(ForeignKey("schedules.name"), primary_key=True)
    fire_at: Mapped[datetime] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class Pause(Base):
    """What does not run at the moment: one kind of job, or one queue."""

    __tablename__ = "pauses"
    __table_args__ = (CheckConstraint("target ~ '^(kind|queue):.'", name="target"),)

    target: Mapped[str] = mapped_column(primary_key=True)
    """`kind:` or `queue:`, and its name."""
    by: Mapped[str]
    reason: Mapped[str]
    since: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    until: Mapped[datetime | None]


class WorkerRecord(Base):
    """One worker process, as of its last heartbeat."""

    __tablename__ = "workers"
    __table_args__ = (
        CheckConstraint(one_of("state", WORKER_STATES), name="state"),
        CheckConstraint(one_of("mode", WORKER_MODES), name="mode"),
        {"postgresql_with": {"fillfactor": "50"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    version: Mapped[str]
    kinds: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    state: Mapped[str]
    mode: Mapped[str]
    jobs_running: Mapped[int] = mapped_column(server_default=text("0"))
    queue_key: Mapped[str]
    """Where the queue `default` stands in the Redis that it serves."""
    queues: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    """The queues that it serves, by name."""
    started_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    seen_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class WebhookEndpoint(Base):
    """Where other services hear that a job has ended."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (CheckConstraint("cardinality(secrets) > 0", name="secrets"),)

    name: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    secrets: Mapped[list[str]] = mapped_column(ARRAY(Text()))
    """What deliveries are signed with: several while one is being replaced."""
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    failing_since: Mapped[datetime | None]
    """When the deliveries began to fail, none having succeeded since."""
    disabled_at: Mapped[datetime | None]
    disabled_because: Mapped[str | None]
