"""Which of a report's columns go on paper, and in which words."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from jobs._reports.pdf_text import human

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs._reports.document import Kind

Line = dict[str, str]
"""One line's cells by column name."""


@dataclass(frozen=True, slots=True)
class PageColumn:
    """One column of a page."""

    label: str
    cell: Callable[[Line], str]
    total: Callable[[Line], str]
    """Its text in an opening or closing row."""
    right: bool = False
    wide: bool = False
    small: bool = False


@dataclass(frozen=True, slots=True)
class Layout:
    """A report's page."""

    columns: tuple[PageColumn, ...]
    landscape: bool = False
    groups: tuple[tuple[str, int], ...] = ()
    """Headings over the headings, and how many columns each spans."""
    cards: tuple[str, ...] = ()
    """Figures in large print."""
    notes: tuple[str, ...] = ()
    """Figures under the table."""
    tables: "Mapping[str, tuple[PageColumn, ...]]" = field(default_factory=dict)
    """The columns of the short tables that follow, by the table's name."""
    headings: bool = True
    double_rule: bool = False
    """As accountants close a column that has been proved."""


def _value(name: str, kind: "Kind", line: Line) -> str:
    return human(kind, line[name])


def _column(name: str, label: str, kind: "Kind") -> PageColumn:
    value = partial(_value, name, kind)
    return PageColumn(label, value, value, right=kind in ("money", "count", "percent"))


def _nothing(_line: Line) -> str:
    return ""


def _posted(line: Line) -> str:
    day, time = human("time", line["posted_at"]).split(" ")
    return f"{day}  {time[:5]}"


def _description(line: Line) -> str:
    words = line["description"]
    if words == "Transfer":
        way = "to" if line["debit"] else "from"
        words = f"Transfer {way} {line['counterparty_name'] or line['counterparty']}"
    return words


def _statement_total(line: Line) -> str:
    return {"opening": "Opening balance", "total": "Total", "closing": "Closing balance"}[
        line["line"]
    ]


def _account(line: Line) -> str:
    return line["holder"] or line["type"].capitalize()


def _total(_line: Line) -> str:
    return "Total"


def _entries(line: Line) -> str:
    if not line["first_entry"]:
        return ""
    return f"{human('count', line['first_entry'])}\N{EN DASH}{human('count', line['last_entry'])}"


STATEMENT: Final = Layout(
    columns=(
        PageColumn("Posted", _posted, _nothing),
        PageColumn("Description", _description, _statement_total, wide=True),
        PageColumn("Transfer", partial(_value, "transfer_id", "id"), _nothing, small=True),
        _column("entry", "Entry", "count"),
        _column("debit", "Money out", "money"),
        _column("credit", "Money in", "money"),
        _column("balance", "Balance", "money"),
    ),
    cards=("opening_balance", "credits", "debits", "closing_balance"),
    headings=False,
)

TRIAL_BALANCE: Final = Layout(
    landscape=True,
    columns=(
        PageColumn("Account", _account, _total, wide=True),
        PageColumn("Code", partial(_value, "account", "id"), _nothing, small=True),
        _column("entries", "Entries", "count"),
        _column("opening_debit", "Debit", "money"),
        _column("opening_credit", "Credit", "money"),
        _column("debits", "Debit", "money"),
        _column("credits", "Credit", "money"),
        _column("net", "Net", "money"),
        _column("closing_debit", "Debit", "money"),
        _column("closing_credit", "Credit", "money"),
    ),
    groups=(("", 3), ("Opening balance", 2), ("Movements", 3), ("Closing balance", 2)),
    double_rule=True,
)

TRANSFER_VOLUME: Final = Layout(
    landscape=True,
    columns=(
        PageColumn("Day", partial(_value, "day", "day"), _total, wide=True),
        _column("transfers", "Transfers", "count"),
        _column("transfers_change", "Change", "percent"),
        _column("total", "Total", "money"),
        _column("total_change", "Change", "percent"),
        _column("median", "Median", "money"),
        _column("largest", "Largest", "money"),
        _column("deposits", "Deposits", "money"),
        _column("withdrawals", "Withdrawals", "money"),
        _column("accounts", "Accounts", "count"),
        _column("rejected", "Rejected", "count"),
        PageColumn("World entries", _entries, _entries, right=True, small=True),
    ),
    cards=("total", "transfers", "deposits", "withdrawals", "largest"),
    notes=("rejected_by_reason",),
    tables={
        "largest_transfers": (
            PageColumn("Posted", _posted, _nothing),
            PageColumn("From", partial(_value, "from_account", "id"), _nothing, wide=True),
            PageColumn("To", partial(_value, "to_account", "id"), _nothing, wide=True),
            PageColumn("Transfer", partial(_value, "transfer_id", "id"), _nothing, small=True),
            _column("amount", "Amount", "money"),
        )
    },
)

LAYOUTS: Final = {
    "account_statement": STATEMENT,
    "trial_balance": TRIAL_BALANCE,
    "transfer_volume": TRANSFER_VOLUME,
}
