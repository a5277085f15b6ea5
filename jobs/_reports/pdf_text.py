"""Values in the words and figures of a page."""

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jobs._reports.document import Kind

MINUS: Final = "\N{MINUS SIGN}"


def human(kind: "Kind", text: str) -> str:
    """Return a value as people read it: thousands apart, a real minus, no seconds' fractions."""
    return _WORDS.get(kind, str)(text) if text else ""


def _number(text: str) -> str:
    return f"{Decimal(text):,f}".replace("-", MINUS)


def _percent(text: str) -> str:
    return f"{Decimal(text):+,.1f} %".replace("-", MINUS)


def _time(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}"


def _day(text: str) -> str:
    return f"{date.fromisoformat(text):%a %d %b %Y}"


def _codes(text: str) -> str:
    return text.replace("_", " ")


_WORDS: "Final[Mapping[Kind, Callable[[str], str]]]" = {
    "money": _number,
    "count": _number,
    "percent": _percent,
    "time": _time,
    "day": _day,
    "codes": _codes,
}


def span(kind: "Kind", first: str, last: str) -> str:
    """Return a value, or two with a dash between them."""
    words = human(kind, first)
    return words if first == last else f"{words} \N{EN DASH} {human(kind, last)}"
