"""What came from data is shown as data, on a terminal that obeys nothing of it."""

import io
import json

import pytest
from rich.console import Console
from rich.table import Table

from worker.tables import add_row, json_text

HOSTILE = [
    "order-[/x]-1",
    "[red]5[/red] [link=https://x]y[/link]",
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b31m",
    "two\nlines\r",
    "\u202egnp.exe",
    ":smile:",
    "\\[bold]",
    "\U000e0041",
]
SHOWN = {
    "\x1b[31mred\x1b[0m": r"\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31m": r"\x9b31m",
    "two\nlines\r": r"two\nlines\r",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\U000e0041": r"\U000e0041",
}


@pytest.fixture
def terminal():
    return Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_a_cell_shows_its_value_whole_and_obeys_nothing_of_it(value, terminal):
    table = Table("key")
    add_row(table, value)
    terminal.print(table)

    assert SHOWN.get(value, value) in terminal.file.getvalue()
    assert not set(terminal.file.getvalue()) & set("\x1b\x07\x9b\r\u202e\U000e0041")


@pytest.mark.parametrize("value", HOSTILE, ids=ascii)
def test_json_escapes_what_a_terminal_obeys_and_means_the_same(value):
    text = json_text({value: [value]})

    assert json.loads(text) == {value: [value]}
    assert not set(text) & set("\x1b\x07\x9b\r\n\u202e\U000e0041")
