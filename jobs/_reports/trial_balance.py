"""A trial balance: every account's sides, which add up to the same in every currency."""

from typing import TYPE_CHECKING, Final

from jobs._reports.amounts import decimal_text
from jobs._reports.document import Column, Document, Figure, Section
from jobs._reports.period import period_facts

if TYPE_CHECKING:
    from datetime import tzinfo
    from uuid import UUID

    from db.bank.reports import CurrencyTotals, TrialBalance

COLUMNS: Final = (
    Column("line", "Line", width=9),
    Column("currency", "Currency", width=9),
    Column("account", "Account", width=47),
    Column("holder", "Holder", width=22),
    Column("type", "Type", width=14),
    Column("entries", "Entries", "count", width=9),
    Column("opening_debit", "Opening debit", "money", width=18),
    Column("opening_credit", "Opening credit", "money", width=18),
    Column("debits", "Debits", "money", width=18),
    Column("credits", "Credits", "money", width=18),
    Column("net", "Net", "money", width=18),
    Column("closing_debit", "Closing debit", "money", width=18),
    Column("closing_credit", "Closing credit", "money", width=18),
)


def document_of(balance: "TrialBalance", *, job_id: "UUID", timezone: "tzinfo") -> Document:
    """Return the trial balance's document."""
    return Document(
        report="trial_balance",
        title="Trial balance",
        job_id=str(job_id),
        timezone=str(timezone),
        facts=(
            *period_facts(balance.start, balance.end, timezone),
            Figure("basis", "Basis", "Posted transfers only"),
        ),
        columns=COLUMNS,
        sections=tuple(_section(totals) for totals in balance.currencies),
    )


def _section(totals: "CurrencyTotals") -> Section:
    def amount(minor: int) -> str:
        return decimal_text(minor, totals.digits)

    sides = (
        ("opening_debit", "Opening debit", totals.opening_debit),
        ("opening_credit", "Opening credit", totals.opening_credit),
        ("debits", "Debits", totals.debits),
        ("credits", "Credits", totals.credits),
        ("net", "Net", totals.credits - totals.debits),
        ("closing_debit", "Closing debit", totals.closing_debit),
        ("closing_credit", "Closing credit", totals.closing_credit),
    )
    cells = [amount(minor) for _, _, minor in sides]
    return Section(
        currency=totals.currency,
        digits=totals.digits,
        lines=totals.lines,
        figures=(
            Figure("accounts", "Accounts", str(totals.lines), "count"),
            Figure("entries", "Entries", str(totals.entries), "count"),
            *(Figure(name, label, amount(minor), "money") for name, label, minor in sides),
        ),
        after=(("total", totals.currency, "", "", "", str(totals.entries), *cells),),
    )
