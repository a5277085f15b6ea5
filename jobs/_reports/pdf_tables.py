"""Which of a report's columns go on paper, and in which words."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final

from jobs._reports.pdf_text import human, span

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    """Whether what the others leave of the page is this column's."""
    small: bool = False


def _as_they_are(lines: "Iterable[Line]") -> "Iterable[Line]":
    return lines


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
    folded: "Callable[[Iterable[Line]], Iterable[Line]]" = _as_they_are
    """Makes one line of several that say nothing each."""
    proof: tuple[str, str] | None = None
    """Two figures that are equal, or there would be no report."""
    summary: tuple[str, ...] = ()
    """The figures of each currency that stand in a table on the first page."""
    carries_last: bool = False
    """Whether the last column's value stands at the head of the next page."""
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


def _party(side: str, line: Line) -> str:
    code = line[f"{side}_account"]
    return line[f"{side}_name"] or ("Outside world" if code.startswith("world:") else code)


def _day(line: Line) -> str:
    return span("day", line["day"], line.get("last_day", line["day"]))


def fold_quiet_days(lines: "Iterable[Line]") -> "Iterable[Line]":
    """Make one line of days that follow each other and had neither a transfer nor a refusal."""
    quiet: Line | None = None
    for line in lines:
        if line["transfers"] == line["rejected"] == "0":
            first = quiet or dict.fromkeys(line, "") | {"day": line["day"], "transfers": "0"}
            quiet = first | {"last_day": line["day"]}
            continue
        if quiet:
            yield quiet
            quiet = None
        yield line
    if quiet:
        yield quiet


STATEMENT: Final = Layout(
    columns=(
        PageColumn("Posted", _posted, _nothing),
        PageColumn("Description", _description, _statement_total, wide=True),
        _column("entry", "Entry", "count"),
        _column("debit", "Money out", "money"),
        _column("credit", "Money in", "money"),
        _column("balance", "Balance", "money"),
    ),
    cards=("opening_balance", "credits", "debits", "closing_balance"),
    carries_last=True,
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
    proof=("closing_debit", "closing_credit"),
    summary=("accounts", "entries", "debits", "credits", "closing_debit", "closing_credit"),
    double_rule=True,
)

TRANSFER_VOLUME: Final = Layout(
    landscape=True,
    columns=(
        PageColumn("Day", _day, _total),
        _column("transfers", "Count", "count"),
        _column("transfers_change", "Change", "percent"),
        _column("total", "Total", "money"),
        _column("total_change", "Change", "percent"),
        _column("median", "Median", "money"),
        _column("largest", "Largest", "money"),
        _column("deposits", "Deposits", "money"),
        _column("withdrawals", "Withdrawals", "money"),
        _column("accounts", "Accounts", "count"),
        _column("rejected", "Rejected", "count"),
    ),
    groups=(
        *(("", 1), ("Transfers", 2), ("Volume", 2), ("One transfer", 2)),
        *(("From and to outside", 2), ("", 2)),
    ),
    cards=("total", "transfers", "deposits", "withdrawals", "largest"),
    notes=("rejected_by_reason",),
    summary=("transfers", "total", "deposits", "withdrawals", "largest", "rejected"),
    tables={
        "largest_transfers": (
            PageColumn("Posted", _posted, _nothing),
            PageColumn("From", partial(_party, "from"), _nothing, wide=True),
            PageColumn("To", partial(_party, "to"), _nothing, wide=True),
            PageColumn("Transfer", partial(_value, "transfer_id", "id"), _nothing, small=True),
            _column("amount", "Amount", "money"),
        )
    },
    folded=fold_quiet_days,
)

LAYOUTS: Final = {
    "account_statement": STATEMENT,
    "trial_balance": TRIAL_BALANCE,
    "transfer_volume": TRANSFER_VOLUME,
}
