"""PDF for people: a page is put together here, and `report.typ` says how it looks.

Nothing of a report is ever markup: it reaches typst as strings in a JSON file.
"""

import json
import shutil
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import font_source_sans_pro
import typst
from iso4217 import Currency

from jobs._reports import pdf_tables
from jobs._reports.pdf_chart import chart_of
from jobs._reports.pdf_text import human, span
from jobs._reports.pdf_widths import scale_of, widths_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jobs._reports.document import Column, Document, Figure, Section, Table

TEMPLATE: Final = Path(__file__).parent / "report.typ"
FONTS: Final = Path(font_source_sans_pro.__file__).parent / "files"

FACTS_LEFT_OUT: Final = (
    *("holder", "period_start", "period_end", "last_day", "account_code"),
    *("first_entry", "last_entry"),  # both in one fact
)


def write(
    document: "Document", lines: "Iterator[list[str]]", target: Path, wrote: "Callable[[], None]"
) -> None:
    """Set the report on pages and write them to `target`."""
    folder = target.parent
    page = page_of(document, lines, wrote)
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
        pdf_tags=True,  # a screen reader finds its way by them
        timestamp=_end_of(document),
    )


def page_of(
    document: "Document", lines: "Iterator[list[str]]", wrote: "Callable[[], None]"
) -> dict[str, Any]:
    """Return what the template sets: texts, and where each goes."""
    layout = pdf_tables.LAYOUTS[document.report]
    sections = [_section(document, section, lines, layout, wrote) for section in document.sections]
    rows = [row for one in sections for row in (*one["before"], *one["rows"], *one["after"])]
    widths = widths_of(layout.columns, rows)
    scale = scale_of(widths, landscape=layout.landscape)
    facts = {fact.name: fact for fact in document.facts}
    period = facts["period"].value or ""
    holder = facts["holder"].value if "holder" in facts else None
    return {
        "title": document.title,
        "subtitle": holder or period,
        "issuer": document.issuer,
        "logo": document.logo,
        "landscape": layout.landscape,
        "job_id": document.job_id,
        "running_head": [text for text in (holder, _of(facts, "account_id"), period) if text],
        "facts": [
            *(
                (fact.label, human(fact.kind, fact.value or ""))
                for fact in document.facts
                if fact.value
                and fact.name not in FACTS_LEFT_OUT
                and fact.value != (holder or period)
            ),
            *_entries(facts),
        ],
        "summary": _summary(document, layout),
        "columns": _heads(layout.columns, widths, scale),
        "scale": scale,
        "groups": layout.groups,
        "carries_last": layout.carries_last,
        "sections": sections,
    }


def _of(facts: "dict[str, Figure]", name: str) -> str | None:
    return facts[name].value if name in facts else None


def _entries(facts: "dict[str, Figure]") -> list[tuple[str, str]]:
    first, last = _of(facts, "first_entry"), _of(facts, "last_entry")
    return [("Entries", span("count", first, last))] if first and last else []


def _summary(document: "Document", layout: "pdf_tables.Layout") -> dict[str, Any] | None:
    """Return a line for each currency, where there are several."""
    if len(document.sections) < 2 or not layout.summary:  # noqa: PLR2004 - several
        return None
    first = {figure.name: figure for figure in document.sections[0].figures}
    rows = []
    for section in document.sections:
        figures = {figure.name: figure for figure in section.figures}
        shown = [figures[name] for name in layout.summary]
        rows.append([section.currency, *(human(one.kind, one.value or "") for one in shown)])
    return {
        "heads": ["Currency", *(first[name].label for name in layout.summary)],
        "rows": rows,
    }


def _section(
    document: "Document",
    section: "Section",
    lines: "Iterator[list[str]]",
    layout: "pdf_tables.Layout",
    wrote: "Callable[[], None]",
) -> dict[str, Any]:
    def told() -> "Iterator[pdf_tables.Line]":
        for _ in range(section.lines):
            yield _line(document.columns, next(lines))
            wrote()

    def totals(rows: "Sequence[Sequence[str]]") -> list[list[str]]:
        return [
            [column.total(_line(document.columns, cells)) for column in layout.columns]
            for cells in rows
        ]

    figures = {figure.name: figure for figure in section.figures}
    return {
        "currency": section.currency,
        "heading": _currency_name(section.currency) if layout.headings else None,
        "proof": _proof(layout, figures),
        "cards": [_card(figures[name], section.currency) for name in layout.cards],
        "chart": chart_of(section.chart, section.currency) if section.chart else None,
        "before": totals(section.before),
        "rows": [
            [column.cell(line) for column in layout.columns] for line in layout.folded(told())
        ],
        "after": totals(section.after),
        "double_rule": layout.double_rule,
        "note": _notes([figures[name] for name in layout.notes]),
        "tables": [
            _table(section, table, layout.tables[table.name], landscape=layout.landscape)
            for table in section.tables
        ],
    }


def _card(figure: "Figure", currency: str) -> tuple[str, str, str]:
    unit = currency if figure.kind == "money" else ""
    return figure.label, human(figure.kind, figure.value or ""), unit


def _proof(layout: "pdf_tables.Layout", figures: "dict[str, Figure]") -> str | None:
    if layout.proof is None:
        return None
    debit, credit = (figures[name].value or "0" for name in layout.proof)
    difference = f"{Decimal(debit) - Decimal(credit):f}"
    debits, credits_, left = (human("money", text) for text in (debit, credit, difference))
    return f"Debits {debits}, credits {credits_}: difference {left}"


def _notes(notes: "Sequence[Figure]") -> str | None:
    told = [f"{note.label}: {human(note.kind, note.value)}" for note in notes if note.value]
    return ". ".join(told) or None


def _currency_name(code: str) -> str:
    """Return what ISO 4217 calls the currency; nothing for one that it has withdrawn."""
    try:
        return Currency(code).currency_name
    except ValueError:
        return ""


def _table(
    section: "Section",
    table: "Table",
    columns: "Sequence[pdf_tables.PageColumn]",
    *,
    landscape: bool,
) -> dict[str, Any]:
    lines = [_line(table.columns, cells) for cells in table.rows]
    rows = [[column.cell(line) for column in columns] for line in lines]
    widths = widths_of(columns, rows)
    scale = scale_of(widths, landscape=landscape)
    return {
        "title": f"{table.title}, {section.currency}",
        "columns": _heads(columns, widths, scale),
        "scale": scale,
        "rows": rows,
    }


def _line(columns: "Sequence[Column]", cells: "Sequence[str]") -> pdf_tables.Line:
    return dict(zip((column.name for column in columns), cells, strict=True))


def _heads(
    columns: "Sequence[pdf_tables.PageColumn]", widths: "Sequence[float]", scale: float
) -> list[dict[str, Any]]:
    return [
        {
            "label": column.label,
            "right": column.right,
            "wide": column.wide,
            "small": column.small,
            "width": width * scale,
        }
        for column, width in zip(columns, widths, strict=True)
    ]


def _end_of(document: "Document") -> int:
    end = next(fact.value for fact in document.facts if fact.name == "period_end")
    return int(datetime.fromisoformat(end or "").timestamp())
