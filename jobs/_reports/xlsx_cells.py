"""How a value looks in a sheet, and how it gets there."""

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from xlsxwriter.format import Format
    from xlsxwriter.workbook import Workbook

    from jobs._reports.document import Kind

DIGITS_MAX: Final = 15
"""What Excel's numbers keep; an amount with more is written as text rather than changed."""

INK: Final = "#1F2933"
QUIET: Final = "#7B8794"
ACCENT: Final = "#2F6690"
SHADE: Final = "#F2F5F8"
FONT: Final = "Calibri"
LEFT: Final = {"align": "left", "indent": 1}
"""Away from the number to its left."""


class Styles:
    """The workbook's formats, each made once."""

    def __init__(self, workbook: "Workbook") -> None:
        self._workbook = workbook
        self._made: dict[tuple[tuple[str, Any], ...], Format] = {}

    def get(self, **properties: Any) -> "Format":  # noqa: ANN401 - xlsxwriter's own vocabulary
        """Return the format with these properties."""
        key = tuple(sorted(properties.items()))
        if key not in self._made:
            look = {"font_name": FONT, "font_size": 10, "font_color": INK, "valign": "vcenter"}
            self._made[key] = self._workbook.add_format(look | properties)
        return self._made[key]

    def cell(
        self, kind: "Kind", digits: int, *, strong: bool = False, align: str | None = None
    ) -> "Format":
        """Return the format of a value: numbers to the right, with the currency's digits."""
        properties: dict[str, Any] = {"bold": True, "top": 1, "bg_color": SHADE} if strong else {}
        match kind:
            case "money":
                number = "#,##0" + ("." + "0" * digits if digits else "")
                properties |= {"num_format": f"{number};[Red]-{number}", "align": "right"}
            case "count":
                properties |= {"num_format": "#,##0", "align": "right"}
            case "percent":
                properties |= {"num_format": "+0.0%;[Red]-0.0%;0.0%", "align": "right"}
            case "time":
                properties |= LEFT | {"num_format": "yyyy-mm-dd hh:mm:ss.000"}
            case "day":
                properties |= LEFT | {"num_format": "yyyy-mm-dd"}
            case "id":
                properties |= LEFT | {"font_color": QUIET, "font_size": 9}
            case "text" | "codes":
                properties |= LEFT
        return self.get(**properties | ({"align": align, "indent": 0} if align else {}))


def write_value(
    sheet: Any,  # noqa: ANN401 - xlsxwriter's methods carry no types
    at: tuple[int, int],
    kind: "Kind",
    text: str | None,
    style: "Format",
) -> None:
    """Write a value into the cell `at` (row, column)."""
    if not text:
        sheet.write_blank(*at, None, style)
    elif kind == "count":
        sheet.write_number(*at, int(text), style)
    elif kind == "money" and len(text.strip("-").replace(".", "").lstrip("0")) <= DIGITS_MAX:
        sheet.write_number(*at, float(text), style)
    elif kind == "percent":
        sheet.write_number(*at, float(text) / 100, style)
    elif kind in ("time", "day"):
        # A sheet knows no time zones: the heading names the one that these are in.
        sheet.write_datetime(*at, datetime.fromisoformat(text).replace(tzinfo=None), style)
    else:
        sheet.write_string(*at, text, style)
