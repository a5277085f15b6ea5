"""Transfer volume: what moved on each day, currency by currency."""

import csv
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from db import money
from worker.reports.document import Chart, Column, Document, Figure, Section
from worker.reports.period import period_facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo
    from uuid import UUID

    from db.reports import CurrencyVolume, DayVolume, TransferVolume

COLUMNS: Final = (
    Column("line", "Line", width=9),
    Column("currency", "Currency", width=9),
    Column("day", "Day", "day", width=12),
    Column("transfers", "Transfers", "count", width=11),
    Column("total", "Total", "money", width=18),
    Column("change", "Change", "percent", width=11),
    Column("median", "Median", "money", width=16),
    Column("largest", "Largest", "money", width=18),
    Column("deposits", "Deposits", "money", width=18),
    Column("withdrawals", "Withdrawals", "money", width=18),
    Column("accounts", "Accounts", "count", width=10),
    Column("rejected", "Rejected", "count", width=10),
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
        sections=tuple(_section(one, _days(volume, timezone)) for one in volume.currencies),
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
        return str(money.to_decimal(minor, one.currency))

    for day in one.days:
        yield (
            "day",
            one.currency,
            days[day.day],
            str(day.transfers),
            amount(day.total),
            _change(day),
            amount(day.median),
            amount(day.largest),
            amount(day.deposits),
            amount(day.withdrawals),
            str(day.accounts),
            str(day.rejected),
        )


def _change(day: "DayVolume") -> str:
    """Return the total against the day before's in percent, or nothing where that was nothing."""
    if not day.total_before:
        return ""
    change = Decimal(day.total - day.total_before) * 100 / day.total_before
    return f"{change:.1f}"


def _section(one: "CurrencyVolume", days: list[str]) -> Section:
    def amount(minor: int) -> str:
        return str(money.to_decimal(minor, one.currency))

    total = sum(day.total for day in one.days)
    transfers = sum(day.transfers for day in one.days)
    largest = max((day.largest for day in one.days), default=0)
    deposits = sum(day.deposits for day in one.days)
    withdrawals = sum(day.withdrawals for day in one.days)
    rejected = sum(day.rejected for day in one.days)
    reasons = sorted(one.rejected_by_reason.items(), key=lambda reason: (-reason[1], reason[0]))
    return Section(
        currency=one.currency,
        digits=money.exponent(one.currency) or 0,
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
            ),
        ),
        after=(
            (
                *("total", one.currency, "", str(transfers), amount(total), "", ""),
                *(amount(largest), amount(deposits), amount(withdrawals), "", str(rejected)),
            ),
        ),
        chart=Chart(
            "Volume per day",
            "bars",
            tuple((days[day.day], amount(day.total)) for day in one.days),
        ),
    )
