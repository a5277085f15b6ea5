"""CSV for programs and for spreadsheets: one table, streamed by the database itself (RFC 4180)."""

import csv
import io
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from jobs._reports.document import Document

# What a spreadsheet may take for a formula. `db.bank.reports` guards streamed lines by this rule.
FORMULA: Final = re.compile(r"\s*[-=+@＝＋－＠|%]")  # noqa: RUF001 - Excel reads the wide ones too


def head_of(document: "Document") -> bytes:
    """Return the header line and the rows that open the table."""
    names = tuple(column.name for column in document.columns)
    return _lines([names, *(row for section in document.sections for row in section.before)])


def tail_of(document: "Document") -> bytes:
    """Return the rows that close the table: the totals of every currency."""
    return _lines([row for section in document.sections for row in section.after])


def guarded(text: str) -> str:
    """Return a text that no spreadsheet takes for a formula."""
    return f"'{text}" if FORMULA.match(text) else text


def _lines(rows: "Iterable[tuple[str, ...]]") -> bytes:
    text = io.StringIO()
    # PostgreSQL ends lines with a bare line feed, so the whole file does.
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
