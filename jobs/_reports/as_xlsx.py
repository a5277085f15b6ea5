"""XLSX for people with a spreadsheet: a summary with a chart, then the lines, ready to filter.

Written row by row in constant memory. A sheet holds a million rows, so long reports go on in
further sheets. Texts are always texts here: a name that looks like a formula stays a name.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import xlsxwriter

from jobs._reports.xlsx_cells import ACCENT, LEFT, Styles, write_value
from jobs._reports.xlsx_summary import Summary, set_up_page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from xlsxwriter.format import Format
    from xlsxwriter.workbook import Workbook
    from xlsxwriter.worksheet import Worksheet

    from jobs._reports.document import Column, Document, Kind, Section

ROWS_MAX: Final = 1_048_576
"""Of one sheet, by the format's own limit; the heading is one of them."""

SHEETS: Final = {
    "account_statement": "Entries",
    "trial_balance": "Accounts",
    "transfer_volume": "Days",
}


def write(
    document: "Document", lines: "Iterator[list[str]]", target: "Path", wrote: "Callable[[], None]"
) -> None:
    """Write the workbook to `target`, one line at a time."""
    options = {
        "constant_memory": True,
        "tmpdir": str(target.parent),
        "strings_to_formulas": False,
        "strings_to_urls": False,
        "strings_to_numbers": False,
    }
    with xlsxwriter.Workbook(str(target), options) as workbook:
        # Fixed by the report and not by the clock: the same report has the same bytes.
        workbook.set_properties(
            {"title": document.title, "comments": document.job_id, "created": _end_of(document)}
        )
        styles = Styles(workbook)
        summary = Summary(workbook, styles, document)
        sheets = _Sheets(workbook, styles, document, SHEETS[document.report], document.columns)
        for section in document.sections:
            for row in section.before:
                sheets.add(section, row, strong=True)
            for _ in range(section.lines):
                sheets.add(section, next(lines))
                wrote()
            for row in section.after:
                sheets.add(section, row, strong=True)
        sheets.finish()
        _write_tables(workbook, styles, document)
        summary.draw_charts()


def _write_tables(workbook: "Workbook", styles: Styles, document: "Document") -> None:
    """Write the short tables, each into a sheet that all currencies share."""
    sheets: dict[str, _Sheets] = {}
    for section in document.sections:
        for table in section.tables:
            if table.title not in sheets:
                sheets[table.title] = _Sheets(
                    workbook, styles, document, table.title, table.columns
                )
            for row in table.rows:
                sheets[table.title].add(section, row)
    for sheet in sheets.values():
        sheet.finish()


@dataclass(slots=True)
class _Sheets:
    """A table's rows, over as many sheets as they need."""

    workbook: "Workbook"
    styles: Styles
    document: "Document"
    name: str
    columns: "Sequence[Column]"
    _sheet: "Worksheet | None" = None
    _row: int = 0
    _number: int = 0
    _looks: "dict[tuple[int, bool], list[tuple[Kind, Format]]]" = field(default_factory=dict)

    def add(self, section: "Section", cells: "Sequence[str]", *, strong: bool = False) -> None:
        """Write one row, in a new sheet where this one is full."""
        if self._sheet is None or self._row == ROWS_MAX:
            self._open_sheet()
        looks = self._looks_of(section.digits, strong=strong)
        for index, (look, text) in enumerate(zip(looks, cells, strict=True)):
            write_value(self._sheet, (self._row, index), look[0], text, look[1])
        self._row += 1

    def _looks_of(self, digits: int, *, strong: bool) -> "list[tuple[Kind, Format]]":
        """Return each column's kind and format, found once: there are millions of cells."""
        if (digits, strong) not in self._looks:
            self._looks[digits, strong] = [
                (column.kind, self.styles.cell(column.kind, digits, strong=strong))
                for column in self.columns
            ]
        return self._looks[digits, strong]

    def finish(self) -> None:
        """Close the last sheet; a report without a line still has its heading."""
        if self._sheet is None:
            self._open_sheet()
        self._close_sheet()

    def _open_sheet(self) -> None:
        self._close_sheet()
        self._number += 1
        name = self.name if self._number == 1 else f"{self.name} {self._number}"
        sheet = self.workbook.add_worksheet(name)
        for index, column in enumerate(self.columns):
            sheet.set_column(index, index, column.width)
        sheet.freeze_panes(1, 0)
        sheet.hide_gridlines(2)
        set_up_page(sheet, self.document)
        sheet.repeat_rows(0)
        for index, column in enumerate(self.columns):
            sheet.write_string(0, index, _heading(column, self.document), self._head(column))
        self._sheet, self._row = sheet, 1

    def _close_sheet(self) -> None:
        if self._sheet is not None:
            self._sheet.autofilter(0, 0, self._row - 1, len(self.columns) - 1)

    def _head(self, column: "Column") -> "Format":
        right = column.kind in ("money", "count", "percent")
        return self.styles.get(
            bold=True,
            font_color="#FFFFFF",
            bg_color=ACCENT,
            **({"align": "right"} if right else LEFT),
        )


def _heading(column: "Column", document: "Document") -> str:
    return f"{column.label} ({document.timezone})" if column.kind == "time" else column.label


def _end_of(document: "Document") -> datetime:
    end = next(figure.value for figure in document.facts if figure.name == "period_end")
    moment = datetime.fromisoformat(end or "")
    return moment.astimezone(UTC).replace(tzinfo=None, microsecond=0)
