"""What came from data, as data: in a table's cells, and in JSON on a terminal."""

import json
import re
from typing import TYPE_CHECKING, Final

import orjson
from rich.text import Text

from worker.errors import visible

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

_NOT_PLAIN: Final = re.compile(r"[^\n -~]")
"""In JSON text such a character stands inside a string, where an escape means the same."""


def cell(value: str) -> Text:
    """Return a cell that shows a value as it is: no markup, no emoji by name, no control."""
    return Text(visible(value))


def lines_cell(values: "Iterable[str]") -> Text:
    """Return one cell with a value on each line."""
    return Text("\n".join(map(visible, values)))


def add_row(table: "Table", *values: str, style: str = "") -> None:
    """Add a row of values from data to a table."""
    table.add_row(*map(cell, values), style=style)


def json_text(value: object, *, indented: bool = False) -> str:
    """Return JSON: on one line for programs, indented for people.

    What a terminal would obey or hide is escaped, as JSON allows: the value stays the same.
    """
    option = orjson.OPT_INDENT_2 if indented else 0
    text = orjson.dumps(value, default=str, option=option).decode()
    return _NOT_PLAIN.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if visible(character) == character:
        return character
    return json.dumps(character)[1:-1]
