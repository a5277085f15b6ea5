"""The types of payload fields that several jobs share."""

import re
from decimal import Decimal
from typing import Annotated, Any, Final

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


def _one_line(value: str) -> str:
    if any(not character.isprintable() or character.isspace() for character in value):
        raise ValueError("no spaces or control characters")
    return value


Username = Annotated[
    str,
    Field(min_length=1, max_length=64, examples=["ada"], json_schema_extra={"personal": True}),
    AfterValidator(_one_line),
]
Email = Annotated[
    str,
    Field(
        min_length=3,
        max_length=254,
        examples=["ada@example.org"],
        json_schema_extra={"personal": True},
    ),
    AfterValidator(_one_line),
]
