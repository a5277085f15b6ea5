"""Transfer volume: what moved on each day, currency by currency."""

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from jobs._reports.amounts import decimal_text
from jobs._reports.document import Chart, Column, Document, Figure, Section, Table
from jobs._reports.period import period_facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo
    from uuid import UUID

    from db.bank.reports import CurrencyVolume, TransferVolume

COLUMNS: Final = (
    Column("line", "Line", width=9),
    Column("currency", "Currency", width=9),
    Column("day", "Day", "day", width=12),
    Column("transfers", "Transfers", "count", width=11),
    Column("transfers_change", "Change in transfers", "percent", width=18),
    Column("total", "Total", "money", width=18),
    Column("total_change", "Change in total", "percent", width=15),
    Column("median", "Median", "money", width=16),
    Column("largest", "Largest", "money", width=18),
    Column("deposits", "Deposits", "money", width=18),
    Column("withdrawals", "Withdrawals", "money", width=18),
    Column("accounts", "Accounts", "count", width=10),
    Column("rejected", "Rejected", "count", width=10),
    Column("first_entry", "First entry", "count", width=11),
    Column("last_entry", "Last entry", "count", width=11),
)

LARGEST_COLUMNS: Final = (
    Column("currency", "Currency", width=9),
    Column("posted_at", "Posted at", "time", width=24),
    Column("transfer_id", "Transfer", "id", width=38),
    Column("from_account", "From", width=47),
    Column("from_name", "From, by name", width=22),
    Column("to_account", "To", width=47),
    Column("to_name", "To, by name", width=22),
    Column("amount", "Amount", "money", width=18),
)


def document_of(volume: "TransferVolume", *, job_id: "UUID", timezone: "tzinfo") -> Document:
    """Return the volume's document."""
    return Document(
        report="transfer_volume",
        title="Transfer volume by day",
        job_id=str(job_id),
        timezone=str(timezone),
        facts=period_facts(volume.midnights[0], volume.midnights[-1], timezone),
        columns=COLUMNS,
        sections=tuple(
            _section(one, _days(volume, timezone), timezone) for one in volume.currencies
        ),
    )


def lines_of(volume: "TransferVolume", *, timezone: "tzinfo") -> bytes:
    """Return the lines as CSV without a header; there are few enough to hold."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    days = _days(volume, timezone)
    for one in volume.currencies:
        writer.writerows(_lines(one, days))
    return text.getvalue().encode()


def _days(volume: "TransferVolume", timezone: "tzinfo") -> list[str]:
    return [start.astimezone(timezone).date().isoformat() for start in volume.midnights[:-1]]


def _lines(one: "CurrencyVolume", days: list[str]) -> "Iterator[tuple[str, ...]]":
    def amount(minor: int) -> str:
        return decimal_text(minor, one.digits)

    for day in one.days:
        yield (
            "day",
            one.currency,
            days[day.day],
            str(day.transfers),
            _change(day.transfers, day.transfers_before),
            amount(day.total),
            _change(day.total, day.total_before),
            amount(day.median),
            amount(day.largest),
            amount(day.deposits),
            amount(day.withdrawals),
            str(day.accounts),
            str(day.rejected),
            _text(day.first_entry),
            _text(day.last_entry),
        )


def _change(value: int, before: int) -> str:
    """Return a day's value against the day before's in percent, or nothing where that was 0."""
    return f"{Decimal(value - before) * 100 / before:.1f}" if before else ""


def _text(version: int | None) -> str:
    return "" if version is None else str(version)


def _largest(one: "CurrencyVolume", timezone: "tzinfo") -> Table:
    rows = tuple(
        (
            one.currency,
            transfer.posted_at.astimezone(timezone).isoformat(),
            str(transfer.id),
            transfer.payer,
            transfer.payer_name or "",
            transfer.payee,
            transfer.payee_name or "",
            decimal_text(transfer.amount, one.digits),
        )
        for transfer in one.largest
    )
    return Table("largest_transfers", "Largest transfers", LARGEST_COLUMNS, rows)


def _section(one: "CurrencyVolume", days: list[str], timezone: "tzinfo") -> Section:
    def amount(minor: int) -> str:
        return decimal_text(minor, one.digits)

    total = sum(day.total for day in one.days)
    transfers = sum(day.transfers for day in one.days)
    largest = max((day.largest for day in one.days), default=0)
    deposits = sum(day.deposits for day in one.days)
    withdrawals = sum(day.withdrawals for day in one.days)
    rejected = sum(day.rejected for day in one.days)
    first_entry = next((day.first_entry for day in one.days if day.first_entry), None)
    last_entry = next((day.last_entry for day in reversed(one.days) if day.last_entry), None)
    reasons = sorted(one.rejected_by_reason.items(), key=lambda reason: (-reason[1], reason[0]))
    return Section(
        currency=one.currency,
        digits=one.digits,
        lines=len(one.days),
        figures=(
            Figure("transfers", "Transfers", str(transfers), "count"),
            Figure("total", "Total", amount(total), "money"),
            Figure("deposits", "Deposits", amount(deposits), "money"),
            Figure("withdrawals", "Withdrawals", amount(withdrawals), "money"),
            Figure("largest", "Largest transfer", amount(largest), "money"),
            Figure("rejected", "Rejected", str(rejected), "count"),
            Figure(
                "rejected_by_reason",
                "Rejected because",
                ", ".join(f"{reason} {count}" for reason, count in reasons) or None,
                "codes",
            ),
        ),
        after=(
            (
                *("total", one.currency, "", str(transfers), "", amount(total), "", ""),
                *(amount(largest), amount(deposits), amount(withdrawals), "", str(rejected)),
                *(_text(first_entry), _text(last_entry)),
            ),
        ),
        chart=Chart(
            "Volume per day",
            "bars",
            tuple((days[day.day], amount(day.total)) for day in one.days),
        ),
        tables=(_largest(one, timezone),),
    )
