"""The tables. Constraints here are alarms: rules are decided by value before they are reached."""

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

CONSTRAINT_NAMES: Final = {
    "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "ck": "%(table_name)s_%(constraint_name)s_check",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
    "pk": "%(table_name)s_pkey",
}

JOB_STATES: Final = ("queued", "completed", "rejected", "dead", "cancelled")
ACCOUNT_STATUSES: Final = ("open", "frozen", "closed")
WORKER_STATES: Final = ("running", "draining", "stopped")
WORKER_MODES: Final = ("normal", "degraded")

# The kinds that are kept for ever, and are by far the most, cost nothing in retention's index.
PURGEABLE: Final = (
    "state IN ('completed', 'rejected', 'cancelled') "
    "AND kind NOT IN ('create_user', 'transfer_funds')"
)


class Base(DeclarativeBase):
    """All tables; names of constraints follow one convention so that migrations can find them."""

    metadata = MetaData(naming_convention=CONSTRAINT_NAMES)
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it as a plain class attribute
        datetime: DateTime(timezone=True),
        str: Text(),
        int: BigInteger(),
    }


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"{column} IN ({', '.join(repr(value) for value in values)})"


def _folded(column: str) -> str:
    """SQL for one form of a name whatever its case or Unicode form (needs no ICU)."""
    return f"casefold((NORMALIZE({column}, NFKC) COLLATE pg_unicode_fast))"


class User(Base):
    """A person or service that owns accounts, one per currency."""

    __tablename__ = "users"
    __table_args__ = (
        Index("users_username_key", text(_folded("username")), unique=True),
        Index("users_email_key", text(_folded("email")), unique=True),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    username: Mapped[str]
    email: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))

    accounts: Mapped[list["Account"]] = relationship(back_populates="user", lazy="raise")


class Account(Base):
    """Money in one currency, as a signed balance (credits minus debits) in minor units.

    `floor` NULL means no lower bound: only `world:<CCY>` accounts, so that Σ balance stays 0.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("id", "currency"),
        UniqueConstraint("user_id", "currency"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint(_one_of("status", ACCOUNT_STATUSES), name="status"),
        CheckConstraint("floor IS NULL OR balance >= floor", name="floor"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    code: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    currency: Mapped[str]
    balance: Mapped[int] = mapped_column(server_default=text("0"))
    floor: Mapped[int | None] = mapped_column(server_default=text("0"))
    status: Mapped[str] = mapped_column(server_default=text("'open'"))
    version: Mapped[int] = mapped_column(server_default=text("0"))
    opened_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))

    user: Mapped[User | None] = relationship(back_populates="accounts", lazy="raise")


class Transfer(Base):
    """One movement of money; its id is the id of the job that made it. Append-only."""

    __tablename__ = "transfers"
    __table_args__ = (
        # The currency of both accounts is the transfer's, by the schema.
        ForeignKeyConstraint(["from_account", "currency"], ["accounts.id", "accounts.currency"]),
        ForeignKeyConstraint(["to_account", "currency"], ["accounts.id", "accounts.currency"]),
        CheckConstraint("amount > 0", name="amount"),
        CheckConstraint("from_account <> to_account", name="two_accounts"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    from_account: Mapped[UUID]
    to_account: Mapped[UUID]
    amount: Mapped[int]
    currency: Mapped[str]
    posted_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))

    entries: Mapped[list["Entry"]] = relationship(lazy="raise", viewonly=True)


class Entry(Base):
    """One side of a transfer on one account; versions count up without a gap. Append-only."""

    __tablename__ = "entries"
    __table_args__ = (
        UniqueConstraint("transfer_id", "account_id"),
        CheckConstraint("amount <> 0", name="amount"),
    )

    account_id: Mapped[UUID] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    transfer_id: Mapped[UUID] = mapped_column(ForeignKey("transfers.id"))
    amount: Mapped[int]
    balance_after: Mapped[int]
    posted_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class JobKind(Base):
    """The kinds of job this database accepts, with the JSON Schema of each payload."""

    __tablename__ = "job_kinds"

    kind: Mapped[str] = mapped_column(primary_key=True)
    payload_schema: Mapped[dict[str, Any]] = mapped_column(JSONB)
    registered_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class JobRecord(Base):
    """The system of record: one row per accepted job, from acceptance to its final outcome."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint(_one_of("state", JOB_STATES), name="state"),
        CheckConstraint("(state = 'queued') = (finished_at IS NULL)", name="finished"),
        Index(
            "jobs_kind_key_key",
            "kind",
            "key",
            unique=True,
            postgresql_where=text("key IS NOT NULL"),
        ),
        Index("jobs_runnable_idx", "run_at", "id", postgresql_where=text("state = 'queued'")),
        Index("jobs_dead_idx", "finished_at", "id", postgresql_where=text("state = 'dead'")),
        Index("jobs_purgeable_idx", "kind", "finished_at", postgresql_where=text(PURGEABLE)),
        {"postgresql_with": {"fillfactor": "80", "autovacuum_vacuum_scale_factor": "0.02"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuidv7()"))
    kind: Mapped[str]
    key: Mapped[str | None]
    payload: Mapped[Any] = mapped_column(JSONB)
    payload_hash: Mapped[bytes] = mapped_column(LargeBinary)
    state: Mapped[str] = mapped_column(server_default=text("'queued'"))
    result: Mapped[Any | None] = mapped_column(JSONB)
    errors: Mapped[list[dict[str, Any]]] = mapped_column(JSONB, server_default=text("'[]'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    enqueued_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    run_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    rung_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    redis_id: Mapped[str | None]
    traceparent: Mapped[str | None]


class ScheduleMark(Base):
    """Up to when a schedule is decided: every run before is made, or was dropped by policy."""

    __tablename__ = "schedules"

    name: Mapped[str] = mapped_column(primary_key=True)
    spec: Mapped[str]
    decided_until: Mapped[datetime]
    missed: Mapped[int] = mapped_column(server_default=text("0"))


class Occurrence(Base):
    """One run of a schedule, written in the transaction that accepts its job."""

    __tablename__ = "occurrences"

    schedule: Mapped[str] = mapped_column(ForeignKey("schedules.name"), primary_key=True)
    fire_at: Mapped[datetime] = mapped_column(primary_key=True)
    job_id: Mapped[UUID] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    made_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))


class WorkerRecord(Base):
    """One worker process of the fleet, as its last heartbeat told."""

    __tablename__ = "workers"
    __table_args__ = (
        CheckConstraint(_one_of("state", WORKER_STATES), name="state"),
        CheckConstraint(_one_of("mode", WORKER_MODES), name="mode"),
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
    started_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
    seen_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))
