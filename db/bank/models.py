"""The bank's tables: users, accounts, transfers, entries."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    SmallInteger,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column, relationship, validates

from db.bank.names import email_key, username_key
from db.models import Base


class User(Base):
    """A person or service that owns accounts, one per currency.

    Names are unique by their keys (`db.bank.names`), which are compared byte by byte.
    """

    __tablename__ = "users"
    __table_args__ = (CheckConstraint("username_key <> ''", name="username_visible"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("new_id()"))
    username: Mapped[str]
    username_key: Mapped[str] = mapped_column(Text(collation="C"), unique=True)
    email: Mapped[str]
    email_key: Mapped[str] = mapped_column(Text(collation="C"), unique=True)
    created_at: Mapped[datetime] = mapped_column(server_default=text("clock_timestamp()"))

    accounts: Mapped[list["Account"]] = relationship(back_populates="user", lazy="raise")

    @validates("username")
    def _fold_username(self, _: str, username: str) -> str:
        self.username_key = username_key(username)
        return username

    @validates("email")
    def _fold_email(self, _: str, email: str) -> str:
        self.email_key = email_key(email)
        return email


class Account(Base):
    """Money in one currency, as a signed balance (credits minus debits) in minor units.

    `exponent` is how many digits of a balance come after the point, and is kept: ISO 4217 decides
    only what the currency's first account in this ledger is opened with.
    `floor` NULL means no lower bound: only `world:<CCY>` accounts, so that Σ balance stays 0.
    """

    __tablename__ = "accounts"
    __table_args__ = (
        UniqueConstraint("id", "currency"),
        UniqueConstraint("user_id", "currency"),
        CheckConstraint("floor IS NULL OR balance >= floor", name="floor"),
        {"postgresql_with": {"fillfactor": "80"}},
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("new_id()"))
    code: Mapped[str] = mapped_column(unique=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"))
    currency: Mapped[str]
    exponent: Mapped[int] = mapped_column(SmallInteger, server_default=text("2"))
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
    number: Mapped[int] = mapped_column(Identity(always=True))
    """Grows along every account in the order of its versions, whatever clocks do."""

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
