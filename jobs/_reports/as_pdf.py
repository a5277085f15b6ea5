"""PDF for people: a page is put together here, and `report.typ` says how it looks.

Nothing of a report is ever markup: it reaches typst as strings in a JSON file.
"""

import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import font_source_sans_pro
import typst
from iso4217 import Currency

from jobs._reports import pdf_tables
from jobs._reports.pdf_chart import chart_of
from jobs._reports.pdf_text import human

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobs._reports.document import Column, Document, Section, Table

TEMPLATE: Final = Path(__file__).parent / "report.typ"
FONTS: Final = Path(font_source_sans_pro.__file__).parent / "files"

FACTS_LEFT_OUT: Final = ("holder", "period_start", "period_end", "last_day", "account_code")


def write(
    document: "Document", lines: "Iterator[list[str]]", target: Path, wrote: "Callable[[], None]"
) -> None:
    """Set the report on pages and write them to `target`."""
    layout = pdf_tables.LAYOUTS[document.report]
    sections = [_section(document, section, lines, layout, wrote) for section in document.sections]
    holder = next((fact.value for fact in document.facts if fact.name == "holder"), None)
    period = next((fact.value or "" for fact in document.facts if fact.name == "period"), "")
    page = {
        "title": document.title,
        "subtitle": holder or period,
        "landscape": layout.landscape,
        "job_id": document.job_id,
        "facts": [
            (fact.label, human(fact.kind, fact.value or ""))
            for fact in document.facts
            if fact.value and fact.name not in FACTS_LEFT_OUT and fact.value != (holder or period)
        ],
        "sections": sections,
    }
    folder = target.parent
    (folder / "page.json").write_text(json.dumps(page, ensure_ascii=False), encoding="utf-8")
    shutil.copyfile(TEMPLATE, folder / "report.typ")
    # No PDF/A: it refuses a text for which no font has a glyph, and a name may have any letter.
    # Fonts of the system serve those; a box stands where there is none.
    typst.compile(
        str(folder / "report.typ"),
        output=str(target),
        root=str(folder),
        font_paths=[str(FONTS)],
        format="pdf",
        pdf_tags=False,  # they triple the size of a long table
        timestamp=_end_of(document),
    )


def _section(
    document: "Document",
    section: "Section",
    lines: "Iterator[list[str]]",
    layout: "pdf_tables.Layout",
    wrote: "Callable[[], None]",
) -> dict[str, Any]:
    def row(cells: "Sequence[str]") -> pdf_tables.Line:
        return _line(document.columns, cells)

    rows = []
    for _ in range(section.lines):
        line = row(next(lines))
        rows.append([column.cell(line) for column in layout.columns])
        wrote()
    figures = {figure.name: figure for figure in section.figures}
    cards = [figures[name] for name in layout.cards]
    notes = [figures[name] for name in layout.notes]
    return {
        "heading": (section.currency, _currency_name(section.currency))
        if layout.headings
        else None,
        "cards": [(card.label, human(card.kind, card.value or "")) for card in cards],
        "chart": chart_of(section.chart, section.currency) if section.chart else None,
        "columns": _heads(layout.columns),
        "groups": layout.groups,
        "before": [
            [column.total(row(cells)) for column in layout.columns] for cells in section.before
        ],
        "rows": rows,
        "after": [
            [column.total(row(cells)) for column in layout.columns] for cells in section.after
        ],
        "double_rule": layout.double_rule,
        "note": ". ".join(f"{note.label}: {note.value}" for note in notes if note.value) or None,
        "tables": [_table(section, table, layout.tables[table.name]) for table in section.tables],
    }


def _currency_name(code: str) -> str:
    """Return what ISO 4217 calls the currency; nothing for one that it has withdrawn."""
    try:
        return Currency(code).currency_name
    except ValueError:
        return ""


def _table(
    section: "Section", table: "Table", columns: "Sequence[pdf_tables.PageColumn]"
) -> dict[str, Any]:
    rows = [_line(table.columns, cells) for cells in table.rows]
    return {
        "title": f"{table.title}, {section.currency}",
        "columns": _heads(columns),
        "rows": [[column.cell(row) for column in columns] for row in rows],
    }


def _line(columns: "Sequence[Column]", cells: "Sequence[str]") -> pdf_tables.Line:
    return dict(zip((column.name for column in columns), cells, strict=True))


def _heads(columns: "Sequence[pdf_tables.PageColumn]") -> list[dict[str, Any]]:
    return [
        {
            "label": column.label,
            "right": column.right,
            "wide": column.wide,
            "small": column.small,
        }
        for column in columns
    ]


def _end_of(document: "Document") -> int:
    end = next(fact.value for fact in document.facts if fact.name == "period_end")
    return int(datetime.fromisoformat(end or "").timestamp())
