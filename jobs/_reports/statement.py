"""An account statement: what came in, what went out, and the balance after each."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from jobs._reports.amounts import decimal_text
from jobs._reports.document import Chart, Column, Document, Figure, Section
from jobs._reports.period import period_facts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime, tzinfo
    from uuid import UUID

    from db.bank.reports import Statement

ONE_SECOND: Final = timedelta(seconds=1)
"""The end is the next day's first moment; a scale should not name that day."""

COLUMNS: Final = (
    Column("line", "Line", width=9),
    Column("currency", "Currency", width=9),
    Column("entry", "Entry", "count", width=9),
    Column("posted_at", "Posted at", "time", width=24),
    Column("transfer_id", "Transfer", "id", width=38),
    Column("description", "Description", width=12),
    Column("counterparty", "Counterparty", width=47),
    Column("counterparty_name", "Counterparty name", width=22),
    Column("debit", "Debit", "money", width=16),
    Column("credit", "Credit", "money", width=16),
    Column("balance", "Balance", "money", width=18),
)


def document_of(
    statement: "Statement",
    series: "Sequence[tuple[datetime, int]]",
    *,
    job_id: "UUID",
    timezone: "tzinfo",
) -> Document:
    """Return the statement's document; `series` is its balance over time, for a chart."""
    facts = (
        Figure("account_id", "Account", str(statement.account), "id"),
        Figure("account_code", "Account code", statement.code, "id"),
        Figure("holder", "Holder", statement.holder),
        Figure("currency", "Currency", statement.currency),
        *period_facts(statement.start, statement.end, timezone),
        Figure("first_entry", "First entry", _text(statement.first_version), "count"),
        Figure("last_entry", "Last entry", _text(statement.last_version), "count"),
    )
    return Document(
        report="account_statement",
        title="Account statement",
        job_id=str(job_id),
        timezone=str(timezone),
        facts=facts,
        columns=COLUMNS,
        sections=(_section(statement, series, timezone),),
    )


def _section(
    statement: "Statement", series: "Sequence[tuple[datetime, int]]", timezone: "tzinfo"
) -> Section:
    def amount(minor: int) -> str:
        return decimal_text(minor, statement.digits)

    def row(line: str, debit: str, credit: str, balance: str) -> tuple[str, ...]:
        return (line, statement.currency, "", "", "", "", "", "", debit, credit, balance)

    points = [
        (at.astimezone(timezone).isoformat(), amount(balance))
        for at, balance in _through_the_period(statement, series)
    ]
    return Section(
        currency=statement.currency,
        digits=statement.digits,
        lines=statement.lines,
        figures=(
            Figure("opening_balance", "Opening balance", amount(statement.opening), "money"),
            Figure("credits", "Money in", amount(statement.credits), "money"),
            Figure("debits", "Money out", amount(statement.debits), "money"),
            Figure("closing_balance", "Closing balance", amount(statement.closing), "money"),
            Figure("credit_lines", "Credits", str(statement.credit_lines), "count"),
            Figure("debit_lines", "Debits", str(statement.debit_lines), "count"),
        ),
        before=(row("opening", "", "", amount(statement.opening)),),
        after=(
            row("total", amount(statement.debits), amount(statement.credits), ""),
            row("closing", "", "", amount(statement.closing)),
        ),
        chart=Chart("Balance", "steps", tuple(points)) if points else None,
    )


def _through_the_period(
    statement: "Statement", series: "Sequence[tuple[datetime, int]]"
) -> "Iterator[tuple[datetime, int]]":
    """Yield the balance from the period's first moment to its last, and each change between."""
    if not series:
        return
    if statement.start is not None:
        yield statement.start, statement.opening
    yield from series
    # Never back in time: an entry may be of the last second.
    yield max(statement.end - ONE_SECOND, series[-1][0]), statement.closing


def _text(version: int | None) -> str | None:
    return None if version is None else str(version)
