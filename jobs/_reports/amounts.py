"""Amounts as a report writes them: whole minor units become decimals, never floats."""

from decimal import Decimal


def decimal_text(minor: int, digits: int) -> str:
    """Return minor units as a decimal with exactly so many digits after the point."""
    return str(Decimal(minor).scaleb(-digits))
