"""How wide the columns of a page are: the same in every currency, so that the eye can go down."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from jobs._reports.pdf_tables import PageColumn

CHARACTER_MM: Final = 1.68
"""A digit in bold at the table's size; digits are all alike."""
SMALL_CHARACTER_MM: Final = 1.16
HEAD_CHARACTER_MM: Final = 1.5
PADDING_MM: Final = 4.4
TEXT_MM_MAX: Final = 62.0
"""A longer text goes on in a second line."""
PAGE_MM: Final = {False: 174.0, True: 261.0}
"""Between the margins, upright and landscape."""


def widths_of(columns: "Sequence[PageColumn]", rows: Iterable[Sequence[str]]) -> list[float]:
    """Return what each column needs, in millimetres."""
    needed = [len(column.label) * HEAD_CHARACTER_MM for column in columns]
    for row in rows:
        for index, text in enumerate(row):
            each = SMALL_CHARACTER_MM if columns[index].small else CHARACTER_MM
            needed[index] = max(needed[index], len(text) * each)
    return [
        PADDING_MM + (width if column.right else min(width, TEXT_MM_MAX))
        for column, width in zip(columns, needed, strict=True)
    ]


def scale_of(widths: Sequence[float], *, landscape: bool) -> float:
    """Return how much smaller letters must be for the columns to fit; 1 where they do."""
    return min(1.0, PAGE_MM[landscape] / sum(widths))
