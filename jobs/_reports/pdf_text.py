"""Values in the words and figures of a page."""

from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobs._reports.document import Kind

MINUS: Final = "\N{MINUS SIGN}"


def human(kind: "Kind", text: str) -> str:
    """Return a value as people read it: thousands apart, a real minus, no seconds' fractions."""
    if text == "":
        return ""
    match kind:
        case "money" | "count":
            return f"{Decimal(text):,f}".replace("-", MINUS)
        case "percent":
            return f"{Decimal(text):+,.1f} %".replace("-", MINUS)
        case "time":
            return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S}"
        case "day":
            return f"{date.fromisoformat(text):%a %d %b %Y}"
        case _:
            return text
