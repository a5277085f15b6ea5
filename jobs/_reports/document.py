"""A report between the books and a file: what a renderer needs, and nothing of a database.

It crosses into the rendering process as JSON; the lines lie beside it in a file of their own.
Values are as a program wants them ("1234.50", ISO 8601); a renderer for people dresses them up.
"""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

Kind = Literal["text", "id", "codes", "time", "day", "count", "money", "percent"]
"""What a value is; `codes` are words of the program, joined by `_`."""
Format = Literal["csv", "json", "xlsx", "pdf"]
Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the lines, in the order in which the database streams them."""

    name: str
    label: str
    kind: Kind = "text"
    width: int = 12
    """Characters, for a sheet."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One value with a name: a fact about the report, or a number worth a place of its own."""

    name: str
    label: str
    value: str | None
    kind: Kind = "text"


@dataclass(frozen=True, slots=True)
class Chart:
    """A picture of one currency's money over time."""

    title: str
    style: Literal["steps", "bars"]
    points: tuple[tuple[str, str], ...]
    """Moments or days, and amounts."""


@dataclass(frozen=True, slots=True)
class Table:
    """A short table of its own after the lines. A CSV file, which is one table, has none."""

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Section:
    """One currency's part of the report: the next `lines` lines of the file."""

    currency: str
    digits: int
    lines: int
    figures: tuple[Figure, ...] = ()
    before: tuple[Row, ...] = ()
    """Rows that open the table, as many cells as there are columns."""
    after: tuple[Row, ...] = ()
    """Rows that close it: the totals."""
    chart: Chart | None = None
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Document:
    """A whole report but for its lines."""

    report: str
    title: str
    job_id: str
    timezone: str
    facts: tuple[Figure, ...]
    columns: tuple[Column, ...]
    sections: tuple[Section, ...] = field(default=())
    issuer: tuple[str, ...] = ()
    """Who makes the report, as lines of an address; the first is the name."""
    logo: str | None = None
    """The name of a picture beside the document."""

    @property
    def lines(self) -> int:
        """How many lines the database streams."""
        return sum(section.lines for section in self.sections)

    def to_json(self) -> dict[str, Any]:
        """Return the document as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            **{
                **raw,
                "facts": tuple(Figure(**figure) for figure in raw["facts"]),
                "columns": _columns(raw["columns"]),
                "sections": tuple(_section(section) for section in raw["sections"]),
                "issuer": tuple(raw["issuer"]),
            }
        )


def _section(raw: dict[str, Any]) -> Section:
    chart = raw["chart"]
    points = tuple((at, amount) for at, amount in chart["points"]) if chart else ()
    return Section(
        **{
            **raw,
            "figures": tuple(Figure(**figure) for figure in raw["figures"]),
            "before": _rows(raw["before"]),
            "after": _rows(raw["after"]),
            "chart": Chart(**{**chart, "points": points}) if chart else None,
            "tables": tuple(
                Table(
                    **{
                        **table,
                        "columns": _columns(table["columns"]),
                        "rows": _rows(table["rows"]),
                    }
                )
                for table in raw["tables"]
            ),
        }
    )


def _columns(raw: list[dict[str, Any]]) -> tuple[Column, ...]:
    return tuple(Column(**column) for column in raw)


def _rows(raw: list[list[str]]) -> tuple[Row, ...]:
    return tuple(tuple(row) for row in raw)
