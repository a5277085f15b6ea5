"""JSON for programs: the facts, then one object per line; amounts are strings, never floats."""

import json
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from jobs._reports.document import Column, Document, Figure, Kind, Section

LINE_NAMES_LEFT_OUT: Final = ("line", "currency")  # the structure says it


def write(
    document: "Document", lines: "Iterator[list[str]]", target: "Path", wrote: "Callable[[], None]"
) -> None:
    """Write the document and its lines to `target`, one line at a time."""
    head = {
        "report": document.report,
        "job_id": document.job_id,
        **{figure.name: _figure(figure) for figure in document.facts},
    }
    with target.open("w", encoding="utf-8", newline="\n") as out:
        out.write(_dump(head)[:-1] + ',"sections":[')
        for number, section in enumerate(document.sections):
            out.write(",\n" if number else "\n")
            _write_section(document, section, lines, out, wrote)
        out.write("\n]}\n")


def _write_section(
    document: "Document",
    section: "Section",
    lines: "Iterator[list[str]]",
    out: TextIO,
    wrote: "Callable[[], None]",
) -> None:
    head = {
        "currency": section.currency,
        **{figure.name: _figure(figure) for figure in section.figures},
    }
    out.write(_dump(head)[:-1] + ',"lines":[')
    for number in range(section.lines):
        out.write((",\n" if number else "\n") + _dump(_line(document.columns, next(lines))))
        wrote()
    out.write("\n]" if section.lines else "]")
    for table in section.tables:
        rows = [_line(table.columns, row) for row in table.rows]
        out.write(f",{_dump(table.name)}:{_dump(rows)}")
    out.write("}")


def _line(columns: "Sequence[Column]", cells: "Sequence[str]") -> dict[str, object]:
    return {
        column.name: value_of(column.kind, cell)
        for column, cell in zip(columns, cells, strict=True)
        if column.name not in LINE_NAMES_LEFT_OUT
    }


def _figure(figure: "Figure") -> object:
    return None if figure.value is None else value_of(figure.kind, figure.value)


def value_of(kind: "Kind", text: str) -> object:
    """Return a cell as JSON: nothing is null, a count is a number, money stays a string."""
    if text == "":
        return None
    if kind == "count":
        return int(text)
    return text


def _dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
