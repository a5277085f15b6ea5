"""What reports are about: the figures of one snapshot, as values in minor units."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Literal
from uuid import UUID

Sink = Callable[[bytes], Awaitable[None]]
"""Where COPY's bytes go; as it is awaited, a slow one holds the database back."""


class BooksError(Exception):
    """The books contradict themselves. No report is made of such books."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the transaction sees, and whether the period asked about can still grow in it."""

    taken_at: datetime
    id: str
    """`pg_current_snapshot()`: every transaction that the report could see."""
    wal_lsn: str
    settled: bool
    """False while a transaction may still commit that posted before the period's end."""


@dataclass(frozen=True, slots=True)
class Statement:
    """One account over one period."""

    report: ClassVar[Literal["account_statement"]] = "account_statement"
    account: UUID
    code: str
    holder: str | None
    """Personal: for the file alone, never for a log or a result."""
    currency: str
    digits: int
    """After the point in the currency's amounts, as in every currency's totals below."""
    start: datetime | None
    """None: from the account's first entry."""
    end: datetime
    """The first moment that does not belong to the period any more."""
    opening: int
    debits: int
    credits: int
    debit_lines: int
    credit_lines: int
    first_version: int | None
    last_version: int | None

    @property
    def lines(self) -> int:
        """How many entries the period has."""
        return self.debit_lines + self.credit_lines

    @property
    def closing(self) -> int:
        """The balance at the period's end."""
        return self.opening + self.credits - self.debits


@dataclass(frozen=True, slots=True)
class CurrencyTotals:
    """One currency's column totals in a trial balance. Each pair of sides is equal."""

    currency: str
    digits: int
    lines: int
    entries: int
    opening_debit: int
    opening_credit: int
    debits: int
    credits: int
    closing_debit: int
    closing_credit: int


@dataclass(frozen=True, slots=True)
class TrialBalance:
    """Every account that has a balance or moved in the period, by currency."""

    report: ClassVar[Literal["trial_balance"]] = "trial_balance"
    start: datetime | None
    end: datetime
    currencies: tuple[CurrencyTotals, ...]

    @property
    def lines(self) -> int:
        """How many accounts it lists."""
        return sum(totals.lines for totals in self.currencies)


@dataclass(frozen=True, slots=True)
class DayVolume:
    """One currency's transfers on one day."""

    day: int
    """Counted from 0, the first day of the period."""
    transfers: int = 0
    total: int = 0
    median: int = 0
    largest: int = 0
    deposits: int = 0
    withdrawals: int = 0
    accounts: int = 0
    """How many different customers' accounts took part."""
    rejected: int = 0
    first_entry: int | None = None
    """Of the currency's world account: the one account whose versions join from day to day."""
    last_entry: int | None = None
    transfers_before: int = 0
    """How many there were the day before."""
    total_before: int = 0


@dataclass(frozen=True, slots=True)
class LargeTransfer:
    """One of the largest transfers of a period."""

    id: UUID
    posted_at: datetime
    payer: str
    """An account's code, as is the payee's."""
    payee: str
    amount: int
    payer_name: str | None = None
    """Personal, as is the payee's: for the file alone. None: the outside world."""
    payee_name: str | None = None


@dataclass(frozen=True, slots=True)
class CurrencyVolume:
    """One currency's transfers, every day of the period, and why some were refused."""

    currency: str
    digits: int
    days: tuple[DayVolume, ...]
    rejected_by_reason: dict[str, int]
    largest: tuple[LargeTransfer, ...]
    """The largest of the period, first; among equals the earlier."""


@dataclass(frozen=True, slots=True)
class TransferVolume:
    """Transfers by day and currency."""

    report: ClassVar[Literal["transfer_volume"]] = "transfer_volume"
    midnights: tuple[datetime, ...]
    """Where each day begins; the last one, where the period ends."""
    currencies: tuple[CurrencyVolume, ...]

    @property
    def lines(self) -> int:
        """How many days of currencies it lists."""
        return sum(len(volume.days) for volume in self.currencies)


def integers(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a row with its sums as integers: PostgreSQL sums bigints to numerics."""
    return {
        name: int(value) if isinstance(value, Decimal) else value for name, value in row.items()
    }
