"""The books as one session sees them: totals for a page, lines by COPY for a file."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.bank.reports.contents import (
    BooksError,
    CurrencyTotals,
    Sink,
    Snapshot,
    Statement,
    TransferVolume,
    TrialBalance,
    integers,
)
from db.bank.reports.queries import (
    BALANCE_OVER_TIME,
    CARRIED_BALANCES,
    COPY_STATEMENT,
    COPY_TRIAL_BALANCE,
    FIND_ACCOUNT,
    FIRST_POSTED_AT,
    SETTLED,
    SUM_STATEMENT,
    SUM_TRIAL_BALANCE,
    TAKE_SNAPSHOT,
)
from db.bank.reports.volume import sum_volume
from db.engine import ONE_MOMENT

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

BALANCE_POINTS_MAX: Final = 240  # a chart has no more pixels to tell them apart
SETTLE_LOOKS: Final = 5
SETTLE_PAUSE_S: Final = 0.05
INVALID_PARAMETER: Final = "22023"


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
            BooksError: the entries and the running balance contradict each other.
        """
        found = (await self._session.execute(FIND_ACCOUNT, {"account": account})).one_or_none()
        if found is None:
            return None
        query = {"account": account, "start": start, "end": end}
        sums = (await self._session.execute(SUM_STATEMENT, query)).one()
        facts = {**found._mapping, **integers(sums._mapping)}  # noqa: SLF001 - SQLAlchemy's name
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
                _unit(statement.digits),
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
            sums = integers(row._mapping)  # noqa: SLF001 - SQLAlchemy's name
            drifted, mixed = sums.pop("drifted"), sums.pop("mixed")
            if drifted:
                raise BooksError(f"{row.currency}: {drifted} balances are not their entries' sum")
            if mixed:
                raise BooksError(f"{row.currency}: its accounts count in different minor units")
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
                [_unit(totals.digits) for totals in balance.currencies],
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

        Raises:
            BooksError: the world account's entries sum up to other amounts, or one is missing.
        """
        return await sum_volume(self._session, midnights, currency)

    async def _copy(self, query: str, parameters: Sequence[Any], sink: Sink) -> None:
        """COPY a query's rows through the session's own connection, inside its snapshot."""
        connection = await self._session.connection()
        driver: Any = (await connection.get_raw_connection()).driver_connection
        # SQLAlchemy opens the transaction with its first statement. Without one, COPY would read
        # outside the snapshot and nothing would show it.
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


def _unit(digits: int) -> Decimal:
    """Return what one minor unit is worth, with exactly so many digits (2: 0.01)."""
    return Decimal(1).scaleb(-digits)
