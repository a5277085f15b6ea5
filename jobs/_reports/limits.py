"""What a format can serve. Beyond it a report is refused by a clear answer, before any work."""

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs._reports.document import Format

# A PDF is laid out as a whole: 3,000 lines are 60 pages and 370 MB for a few seconds.
PDF_LINES_MAX: Final = 3_000
# Two sheets. 50 s of a CPU per million lines; the job has ten minutes, on a machine that is busy.
XLSX_LINES_MAX: Final = 2_000_000

LINES_MAX: "Final[Mapping[Format, int]]" = {"pdf": PDF_LINES_MAX, "xlsx": XLSX_LINES_MAX}


def refusal(lines: int, format: "Format") -> str | None:  # noqa: A002 - the report's own word
    """Return why a report of so many lines is not made in this format, or None."""
    limit = LINES_MAX.get(format, lines)
    if lines <= limit:
        return None
    return (
        f"this report has {lines:,} lines, a {format} at most {limit:,}: "
        "ask for fewer days, or for csv"
    )
