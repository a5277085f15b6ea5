"""The types of payload fields that several jobs share."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final
from unicodedata import category

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

# Digits as people write them: no sign, no exponent, no NaN. At most 15 before the point and
# 4 after (the most that ISO 4217 has); the currency's own exponent is checked when money moves.
AMOUNT_PATTERN: Final = r"^[0-9]{1,15}(\.[0-9]{1,4})?$"
# The same, and greater than zero: for JSON Schema, whose patterns can look ahead.
AMOUNT_SCHEMA_PATTERN: Final = r"^(?=.*[1-9])[0-9]{1,15}(\.[0-9]{1,4})?$"
AMOUNT_DIGITS_MAX: Final = 15
AMOUNT_DECIMALS_MAX: Final = 4


def _amount(value: Any) -> Decimal:  # noqa: ANN401 - a validator sees whatever came in
    if isinstance(value, Decimal):
        value = f"{value:f}"
    if not isinstance(value, str):
        raise ValueError(  # noqa: TRY004 - pydantic reports a ValueError, and lets a TypeError out
            'an amount is a string like "12.34", never a number'
        )
    if re.fullmatch(AMOUNT_PATTERN, value, re.ASCII) is None:
        raise ValueError('an amount has digits and at most one point, like "12.34"')
    amount = Decimal(value)
    if amount == 0:
        raise ValueError("an amount is greater than zero")
    return amount


Amount = Annotated[
    Decimal,
    BeforeValidator(_amount),
    PlainSerializer(lambda amount: f"{amount:f}", return_type=str),
    WithJsonSchema({"type": "string", "pattern": AMOUNT_SCHEMA_PATTERN, "examples": ["12.34"]}),
]
"""Money as a positive decimal: a string on the wire, a `Decimal` in Python, never a float."""

Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", examples=["EUR"])]
"""An ISO 4217 code by its shape; whether it is money here is decided where money moves."""


# Format characters that are part of writing: joiners, which Persian, the scripts of India and emoji
# families are spelled with; tags, which spell the flags of Wales and its like; and what comes along
# when a word is copied from a page. Of two names that differ only in these, the bank takes one.
_WRITTEN_FORMATS: Final = frozenset(
    ["\u200c", "\u200d", "\u00ad", "\u2060", *map(chr, range(0xE0020, 0xE0080))]
)

# Never characters, in no version of Unicode: a run of its own, and the last two of each plane.
_NONCHARACTERS: Final = frozenset(
    [*map(chr, range(0xFDD0, 0xFDF0))]
    + [chr((plane << 16) + last) for plane in range(17) for last in (0xFFFE, 0xFFFF)]
)

# Letters and symbols by their category, and yet without a shape: fillers, blank signs, and what
# Unicode reserves for more that is invisible. A category says of everything else whether it is.
_SHAPELESS: Final = re.compile(
    "[\u115f\u1160\u3164\uffa0\u2800\ufffc\U0001d159\U00013441\U00013442"
    "\u2065\ufff0-\ufff8\U000e0000-\U000e0fff]"
)


def _plain_text(value: str) -> str:
    """Refuse spaces, and what steers text instead of being it.

    A code point that this Python does not know is taken: an emoji is as old as its standard, not as
    the interpreter of whoever reads the name.
    """
    for character in value:
        kind = category(character)
        if character.isspace() or kind[0] == "Z":
            raise ValueError("no spaces")
        if kind in ("Cc", "Cs", "Co") or (kind == "Cf" and character not in _WRITTEN_FORMATS):
            raise ValueError("no control or private characters")
        if character in _NONCHARACTERS:
            raise ValueError("no code points that are not characters")
    return value


def _visible(value: str) -> str:
    """Refuse a name that nobody could see: marks alone, fillers, blanks."""
    shapes = _SHAPELESS.sub("", value)
    # A letter, number, punctuation mark or symbol; or one (Cn) that is newer than this Python.
    if not any(category(one)[0] in "LNPS" or category(one) == "Cn" for one in shapes):
        raise ValueError("a name has at least one visible character")
    return value


Username = Annotated[
    str,
    Field(min_length=1, max_length=64, examples=["ada"], json_schema_extra={"personal": True}),
    AfterValidator(_plain_text),
    AfterValidator(_visible),
]
"""One visible word; whether it is taken is decided by the database."""

Email = Annotated[
    str,
    Field(
        min_length=3,
        max_length=254,
        examples=["ada@example.org"],
        json_schema_extra={"personal": True},
    ),
    AfterValidator(_plain_text),
]
"""An address by its shape; what else an address must be is decided by the job."""
