"""Reports: what one snapshot of the books holds, summed up for a page and streamed for a file.

Everything here reads in the transaction that `take_snapshot` began to look through, so a report's
lines, totals and chart are of one moment. Amounts are minor units until they leave by COPY.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db import money

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

Sink = Callable[[bytes], Awaitable[None]]
"""Where COPY's bytes go; as it is awaited, a slow one holds the database back."""

BALANCE_POINTS_MAX: Final = 240  # a chart has no more pixels to tell them apart
SETTLE_LOOKS: Final = 5
SETTLE_PAUSE_S: Final = 0.05
INVALID_PARAMETER: Final = "22023"
ONE_MOMENT: Final = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}


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
    total_before: int = 0
    """The day before's total."""


@dataclass(frozen=True, slots=True)
class CurrencyVolume:
    """One currency's transfers, every day of the period, and why some were refused."""

    currency: str
    days: tuple[DayVolume, ...]
    rejected_by_reason: dict[str, int]


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


# The transaction's own limits. A running transaction_timeout is not moved by a new value: it must
# be switched off and on. A standby has replayed up to where a primary has written.
TAKE_SNAPSHOT = text("""
    SELECT set_config('transaction_timeout', '0', true),
           set_config('transaction_timeout', :limit_ms, true),
           set_config('statement_timeout', :limit_ms, true),
           set_config('TimeZone', :timezone, true),
           pg_current_snapshot()::text AS id,
           now() AS taken_at,
           CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                ELSE pg_current_wal_lsn() END::text AS wal_lsn
""")

# An entry's time is read while its accounts are locked for update, and locks outlive the commit. So
# when nobody holds such a lock any more who held it at `end`, all that was posted before `end` is
# committed, and a snapshot taken after this statement sees it. The snapshot's own list of running
# transactions would not do: it leaves out those with a number above the last one that committed.
# Whoever began after `end` posts after it. (Other roles' rows in pg_stat_activity may be hidden,
# and a prepared transaction has none: both count as old.)
SETTLED = text("""
    SELECT now() >= :end AND NOT EXISTS (
        SELECT FROM pg_locks AS lock LEFT JOIN pg_stat_activity AS backend USING (pid)
        WHERE lock.locktype = 'relation' AND lock.mode = 'RowShareLock' AND lock.granted
          AND lock.relation = 'accounts'::regclass
          AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND (backend.xact_start >= :end) IS NOT TRUE
    )
""")

FIND_ACCOUNT = text("""
    SELECT a.id AS account, a.code, a.currency, u.username AS holder
    FROM accounts a LEFT JOIN users u ON u.id = a.user_id WHERE a.id = :account
""")

SUM_STATEMENT = text("""
    SELECT coalesce(sum(amount) FILTER (WHERE posted_at < since), 0) AS opening,
           coalesce(-sum(amount) FILTER (WHERE posted_at >= since AND amount < 0), 0) AS debits,
           coalesce(sum(amount) FILTER (WHERE posted_at >= since AND amount > 0), 0) AS credits,
           count(*) FILTER (WHERE posted_at >= since AND amount < 0) AS debit_lines,
           count(*) FILTER (WHERE posted_at >= since AND amount > 0) AS credit_lines,
           min(version) FILTER (WHERE posted_at >= since) AS first_version,
           max(version) FILTER (WHERE posted_at >= since) AS last_version
    FROM entries, coalesce(CAST(:start AS timestamptz), '-infinity') AS since
    WHERE account_id = :account AND posted_at < :end
""")

# What the running balance itself says of the same period.
CARRIED_BALANCES = text("""
    SELECT first.balance_after - first.amount AS opening, last.balance_after AS closing
    FROM entries first, entries last
    WHERE first.account_id = :account AND first.version = :first_version
      AND last.account_id = :account AND last.version = :last_version
""")

BALANCE_OVER_TIME = text("""
    SELECT e.posted_at AS at, e.balance_after AS balance
    FROM (
        SELECT max(version) AS version FROM entries
        WHERE account_id = :account AND version BETWEEN :first_version AND :last_version
        GROUP BY date_bin(:step, posted_at, :origin)
    ) last
    JOIN entries e ON e.account_id = :account AND e.version = last.version
    ORDER BY e.version
""")

FIRST_POSTED_AT = text("""
    SELECT posted_at FROM entries WHERE account_id = :account AND version = :first_version
""")

# Also a check of every balance against the entries it came from, whatever the period: the same
# scan gives it, and a trial balance of drifted accounts would be a lie that balances.
SUM_TRIAL_BALANCE = text("""
    SELECT a.currency,
           count(*) FILTER (WHERE s.opening <> 0 OR s.moved > 0) AS lines,
           sum(s.moved) AS entries,
           coalesce(-sum(s.opening) FILTER (WHERE s.opening < 0), 0) AS opening_debit,
           coalesce(sum(s.opening) FILTER (WHERE s.opening > 0), 0) AS opening_credit,
           sum(s.debits) AS debits,
           sum(s.credits) AS credits,
           coalesce(-sum(s.closing) FILTER (WHERE s.closing < 0), 0) AS closing_debit,
           coalesce(sum(s.closing) FILTER (WHERE s.closing > 0), 0) AS closing_credit,
           count(*) FILTER (WHERE a.balance <> s.total) AS drifted
    FROM accounts a
    LEFT JOIN (
        SELECT account_id,
               sum(amount) AS total,
               sum(amount) FILTER (WHERE posted_at < since) AS opening,
               -sum(amount) FILTER (WHERE posted_at >= since AND posted_at < :end AND amount < 0)
                 AS debits,
               sum(amount) FILTER (WHERE posted_at >= since AND posted_at < :end AND amount > 0)
                 AS credits,
               sum(amount) FILTER (WHERE posted_at < :end) AS closing,
               count(*) FILTER (WHERE posted_at >= since AND posted_at < :end) AS moved
        FROM entries, coalesce(CAST(:start AS timestamptz), '-infinity') AS since
        GROUP BY account_id
    ) e ON e.account_id = a.id
    CROSS JOIN LATERAL (
        SELECT coalesce(e.total, 0) AS total, coalesce(e.opening, 0) AS opening,
               coalesce(e.debits, 0) AS debits, coalesce(e.credits, 0) AS credits,
               coalesce(e.closing, 0) AS closing, coalesce(e.moved, 0) AS moved
    ) s
    WHERE CAST(:currency AS text) IS NULL OR a.currency = :currency
    GROUP BY a.currency
    ORDER BY a.currency
""")

# Days are told apart by their bounds and not by a time zone's name, so that Python and PostgreSQL
# cannot disagree on it. Bucket 1 is the day before the period, for comparison.
SUM_VOLUME = text("""
    WITH posted AS (
        SELECT currency, width_bucket(posted_at, CAST(:bounds AS timestamptz[])) AS bucket, amount,
               from_account, to_account, world_account_id(currency) AS world
        FROM transfers
        WHERE posted_at >= :first AND posted_at < :last
          AND (CAST(:currency AS text) IS NULL OR currency = :currency)
    ), by_day AS (
        SELECT currency, bucket, count(*) AS transfers,
               sum(amount) AS total, max(amount) AS largest,
               percentile_disc(0.5) WITHIN GROUP (ORDER BY amount) AS median,
               coalesce(sum(amount) FILTER (WHERE from_account = world), 0) AS deposits,
               coalesce(sum(amount) FILTER (WHERE to_account = world), 0) AS withdrawals
        FROM posted GROUP BY currency, bucket
    ), taking_part AS (
        SELECT currency, bucket, count(DISTINCT account) AS accounts
        FROM posted, unnest(ARRAY[from_account, to_account]) AS account
        WHERE account <> world GROUP BY currency, bucket
    )
    SELECT * FROM by_day LEFT JOIN taking_part USING (currency, bucket) ORDER BY currency, bucket
""")

COUNT_REJECTED = text("""
    SELECT payload->>'currency' AS currency, result->>'code' AS code,
           width_bucket(finished_at, CAST(:bounds AS timestamptz[])) AS bucket, count(*) AS jobs
    FROM jobs
    WHERE kind = 'transfer_funds' AND state = 'rejected'
      AND finished_at >= :first AND finished_at < :last
      AND (CAST(:currency AS text) IS NULL OR payload->>'currency' = :currency)
    GROUP BY 1, 2, 3
""")


def _guarded(column: str) -> str:
    """SQL for a text that no spreadsheet takes for a formula: a `'` before what could begin one.

    `$1` switches it on: only CSV cells are ever taken for formulas.
    """
    return (
        rf"CASE WHEN $1 AND {column} ~ '^\s*[-=+@＝＋－＠|%]' "  # noqa: RUF001 - Excel reads them
        f"THEN '''' || {column} ELSE {column} END"
    )


# COPY's parameters are asyncpg's own: $1 is whether texts are guarded.
COPY_STATEMENT: Final = f"""
    SELECT 'entry', t.currency, e.version, e.posted_at, e.transfer_id,
           CASE WHEN other.user_id IS NOT NULL THEN 'Transfer'
                WHEN e.amount > 0 THEN 'Deposit' ELSE 'Withdrawal' END,
           {_guarded("other.code")},
           {_guarded("u.username")},
           CASE WHEN e.amount < 0 THEN -e.amount * $5::numeric END,
           CASE WHEN e.amount > 0 THEN e.amount * $5::numeric END,
           e.balance_after * $5::numeric
    FROM entries e
    JOIN transfers t ON t.id = e.transfer_id
    JOIN accounts other
      ON other.id = CASE WHEN e.amount < 0 THEN t.to_account ELSE t.from_account END
    LEFT JOIN users u ON u.id = other.user_id
    WHERE e.account_id = $2::uuid AND e.version BETWEEN $3::bigint AND $4::bigint
    ORDER BY e.version
"""  # noqa: S608 - put together from constants

COPY_TRIAL_BALANCE: Final = f"""
    SELECT 'account', a.currency, {_guarded("a.code")}, {_guarded("u.username")},
           CASE WHEN a.user_id IS NULL THEN 'outside world' ELSE 'customer' END,
           moved,
           CASE WHEN opening < 0 THEN -opening * unit END,
           CASE WHEN opening > 0 THEN opening * unit END,
           CASE WHEN debits > 0 THEN debits * unit END,
           CASE WHEN credits > 0 THEN credits * unit END,
           (credits - debits) * unit,
           CASE WHEN closing < 0 THEN -closing * unit END,
           CASE WHEN closing > 0 THEN closing * unit END
    FROM (
        SELECT account_id,
               coalesce(sum(amount) FILTER (WHERE posted_at < since), 0) AS opening,
               coalesce(-sum(amount) FILTER (WHERE posted_at >= since AND amount < 0), 0) AS debits,
               coalesce(sum(amount) FILTER (WHERE posted_at >= since AND amount > 0), 0) AS credits,
               sum(amount) AS closing,
               count(*) FILTER (WHERE posted_at >= since) AS moved
        FROM entries, coalesce($2::timestamptz, '-infinity') AS since
        WHERE posted_at < $3::timestamptz GROUP BY account_id
    ) e
    JOIN accounts a ON a.id = e.account_id
    JOIN unnest($4::text[], $5::numeric[]) AS c (currency, unit) ON c.currency = a.currency
    LEFT JOIN users u ON u.id = a.user_id
    WHERE opening <> 0 OR moved > 0
    ORDER BY a.currency COLLATE "C", a.code COLLATE "C"
"""  # noqa: S608 - put together from constants


class Reports:
    """What reports read, as one snapshot sees it."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session
        self._limit_s = 0.0

    async def time(self) -> datetime:
        """Return the database's time."""
        now: datetime = await self._session.scalar(text("SELECT clock_timestamp()"))
        return now

    async def take_snapshot(
        self, *, end: datetime, timezone: str, limit: timedelta
    ) -> "Snapshot | Literal['unknown_timezone']":
        """Begin the report's read-only transaction, and fix what it sees.

        Args:
            end: the end of the period that will be reported.
            timezone: in which times of day will be written.
            limit: how long this transaction, and each statement in it, may take.
        """
        # What the whole report stands on is not left to the caller: whatever the session has read
        # before is over, and what it reads from here on is of one moment.
        await self._session.rollback()
        settled = await self._wait_until_settled(end)
        await self._session.connection(execution_options=ONE_MOMENT)
        self._limit_s = limit.total_seconds()
        settings = {"limit_ms": str(int(self._limit_s * 1000)), "timezone": timezone}
        try:
            seen = (await self._session.execute(TAKE_SNAPSHOT, settings)).one()
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) == INVALID_PARAMETER:
                return "unknown_timezone"
            raise
        return Snapshot(seen.taken_at, seen.id, seen.wal_lsn, settled)

    async def _wait_until_settled(self, end: datetime) -> bool:
        """Wait for the short transactions of a moment ago; a long one is for the caller to await.

        A transaction of its own for every look: the snapshot must be younger than the last one.
        """
        for look in range(SETTLE_LOOKS):
            if look:
                await asyncio.sleep(SETTLE_PAUSE_S)
            settled: bool = await self._session.scalar(SETTLED, {"end": end})
            await self._session.rollback()
            if settled:
                return True
        return False

    async def release(self) -> None:
        """Let go of the snapshot and its connection: everything has been read."""
        await self._session.rollback()

    async def statement(
        self, account: UUID, start: datetime | None, end: datetime
    ) -> Statement | None:
        """Sum up one account over one period; None when there is no such account.

        Raises:
            BooksError: the entries and the running balance tell two stories.
        """
        found = (await self._session.execute(FIND_ACCOUNT, {"account": account})).one_or_none()
        if found is None:
            return None
        query = {"account": account, "start": start, "end": end}
        sums = (await self._session.execute(SUM_STATEMENT, query)).one()
        facts = {**found._mapping, **_integers(sums._mapping)}  # noqa: SLF001 - SQLAlchemy's name
        statement = Statement(start=start, end=end, **facts)
        await self._check_statement(statement)
        return statement

    async def _check_statement(self, statement: Statement) -> None:
        if statement.first_version is None or statement.last_version is None:
            return
        if statement.lines != statement.last_version - statement.first_version + 1:
            raise BooksError(
                f"account {statement.account}: {statement.lines} entries between versions "
                f"{statement.first_version} and {statement.last_version}"
            )
        carried = (await self._session.execute(CARRIED_BALANCES, _versions_of(statement))).one()
        if (carried.opening, carried.closing) != (statement.opening, statement.closing):
            raise BooksError(
                f"account {statement.account}: its entries sum up from {statement.opening} to "
                f"{statement.closing}, its running balance goes from {carried.opening} to "
                f"{carried.closing}"
            )

    async def balance_over_time(self, statement: Statement) -> list[tuple[datetime, int]]:
        """Return the balance at up to `BALANCE_POINTS_MAX` moments of the period, for a chart."""
        if statement.first_version is None:
            return []
        versions = _versions_of(statement)
        first: datetime = await self._session.scalar(FIRST_POSTED_AT, versions)
        origin = statement.start or first
        step = max((statement.end - origin) / BALANCE_POINTS_MAX, timedelta(milliseconds=1))
        query = {**versions, "origin": origin, "step": step}
        rows = await self._session.execute(BALANCE_OVER_TIME, query)
        return [(row.at, row.balance) for row in rows]

    async def copy_statement(self, statement: Statement, sink: Sink, *, guarded: bool) -> None:
        """Stream the entries as CSV lines without a header.

        Columns: `entry`, currency, version, posted_at, transfer, description, counterparty, its
        name, debit, credit, balance.
        """
        if statement.first_version is None:
            return
        await self._copy(
            COPY_STATEMENT,
            (
                guarded,
                statement.account,
                statement.first_version,
                statement.last_version,
                _unit(statement.currency),
            ),
            sink,
        )

    async def trial_balance(
        self, start: datetime | None, end: datetime, *, currency: str | None
    ) -> TrialBalance:
        """Sum up every currency, or one, over one period.

        Raises:
            BooksError: it does not balance, or an account's balance is not its entries' sum.
        """
        query = {"start": start, "end": end, "currency": currency}
        found = []
        for row in await self._session.execute(SUM_TRIAL_BALANCE, query):
            sums = _integers(row._mapping)  # noqa: SLF001 - SQLAlchemy's name
            drifted = sums.pop("drifted")
            if drifted:
                raise BooksError(f"{row.currency}: {drifted} balances are not their entries' sum")
            found.append(CurrencyTotals(**sums))
        for totals in found:
            _check_totals(totals)
        return TrialBalance(start, end, tuple(totals for totals in found if totals.lines))

    async def copy_trial_balance(self, balance: TrialBalance, sink: Sink, *, guarded: bool) -> None:
        """Stream the accounts as CSV lines without a header, by currency and code.

        Columns: `account`, currency, code, holder, type, entries, opening debit and credit,
        debits, credits, net, closing debit and credit.
        """
        currencies = [totals.currency for totals in balance.currencies]
        await self._copy(
            COPY_TRIAL_BALANCE,
            (
                guarded,
                balance.start,
                balance.end,
                currencies,
                [_unit(currency) for currency in currencies],
            ),
            sink,
        )

    async def transfer_volume(
        self, midnights: Sequence[datetime], *, currency: str | None
    ) -> TransferVolume:
        """Sum up the transfers of every day.

        Args:
            midnights: where each day begins, the day before the period first; at the end, where
                the period ends.
            currency: only this one.
        """
        query = {
            "bounds": list(midnights),
            "first": midnights[0],
            "last": midnights[-1],
            "currency": currency,
        }
        sums = {
            (row.currency, row.bucket): _integers(row._mapping)  # noqa: SLF001 - SQLAlchemy's name
            for row in await self._session.execute(SUM_VOLUME, query)
        }
        refusals = [
            row
            for row in await self._session.execute(COUNT_REJECTED, query | {"first": midnights[1]})
            if row.currency and money.exponent(row.currency) is not None
        ]
        days = len(midnights) - 2
        found = {name for name, bucket in sums if bucket > 1} | {row.currency for row in refusals}
        return TransferVolume(
            tuple(midnights[1:]),
            tuple(_currency_volume(name, days, sums, refusals) for name in sorted(found)),
        )

    async def _copy(self, query: str, parameters: Sequence[Any], sink: Sink) -> None:
        """COPY a query's rows through the session's own connection, inside its snapshot."""
        connection = await self._session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        # SQLAlchemy opens the transaction with its first statement. Without one, COPY would read
        # outside the snapshot and nothing would tell.
        if not driver.is_in_transaction():
            raise AssertionError("take_snapshot comes before everything else")
        await driver.copy_from_query(
            query, *parameters, output=sink, format="csv", timeout=self._limit_s
        )


def _versions_of(statement: Statement) -> dict[str, Any]:
    return {
        "account": statement.account,
        "first_version": statement.first_version,
        "last_version": statement.last_version,
    }


def _currency_volume(
    currency: str,
    days: int,
    sums: Mapping[tuple[str, int], dict[str, Any]],
    refusals: Sequence[Any],
) -> CurrencyVolume:
    refused = [row for row in refusals if row.currency == currency]
    by_reason = Counter[str]()
    by_bucket = Counter[int]()
    for row in refused:
        by_reason[row.code] += row.jobs
        by_bucket[row.bucket] += row.jobs

    def volume(day: int) -> DayVolume:
        bucket = day + 2
        before = sums.get((currency, bucket - 1), {}).get("total", 0)
        facts = {
            name: value
            for name, value in sums.get((currency, bucket), {}).items()
            if name not in ("currency", "bucket") and value is not None
        }
        return DayVolume(day, **facts, rejected=by_bucket[bucket], total_before=before)

    return CurrencyVolume(currency, tuple(volume(day) for day in range(days)), dict(by_reason))


def _check_totals(totals: CurrencyTotals) -> None:
    pairs = (
        ("opening balances", totals.opening_debit, totals.opening_credit),
        ("movements", totals.debits, totals.credits),
        ("closing balances", totals.closing_debit, totals.closing_credit),
    )
    for name, debit, credit in pairs:
        if debit != credit:
            raise BooksError(
                f"the trial balance does not balance: {totals.currency} {name} are "
                f"{debit} debit and {credit} credit"
            )


def _integers(row: "Mapping[Any, Any]") -> dict[str, Any]:
    """PostgreSQL sums bigints to numerics, which are whole numbers here."""
    return {
        name: int(value) if isinstance(value, Decimal) else value for name, value in row.items()
    }


def _unit(currency: str) -> Decimal:
    """Return what one minor unit is worth, with exactly the currency's digits (EUR: 0.01)."""
    return money.to_decimal(1, currency)
