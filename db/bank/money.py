"""Money at the edge: decimals to minor units and back, by the exponents of ISO 4217."""

from decimal import Decimal
from functools import cache
from typing import Final, Literal

MINOR_UNITS_MAX: Final = 2**63 - 1  # what a BIGINT holds

AmountVerdict = Literal["unknown_currency", "too_many_decimals", "amount_too_large"]


@cache
def exponent(currency: str) -> int | None:
    """Return the digits after the point, or None: no such currency, or (gold) none defined."""
    # A megabyte with its XML parser, for processes that move money.
    from iso4217 import Currency

    try:
        return Currency(currency).exponent
    except ValueError:
        return None


def to_minor_units(amount: Decimal, currency: str) -> int | AmountVerdict:
    """Return `amount` in minor units (EUR 12.34 is 1234), or why it cannot be said in them.

    Nothing is rounded: a digit too many is refused, not dropped.
    """
    digits = exponent(currency)
    if digits is None:
        return "unknown_currency"
    minor = amount.scaleb(digits)
    if minor != minor.to_integral_value():
        return "too_many_decimals"
    if abs(minor) > MINOR_UNITS_MAX:
        return "amount_too_large"
    return int(minor)


def digits_of(currency: str) -> int:
    """Return the digits after the point of a currency that accounts can have.

    Raises:
        ValueError: the currency has no minor unit.
    """
    digits = exponent(currency)
    if digits is None:
        raise ValueError(f"{currency} is not a currency with a minor unit")
    return digits


def to_decimal(minor: int, currency: str) -> Decimal:
    """Return minor units as a decimal with exactly the currency's digits.

    Raises:
        ValueError: the currency has no minor unit.
    """
    return Decimal(minor).scaleb(-digits_of(currency))
