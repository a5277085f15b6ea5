"""Which currencies a new account can be opened in: ISO 4217, as a library has it today.

What an account is counted in, once it is open, is kept with the account (`accounts.exponent`):
money outlives currencies, and the library forgets those that the standard has withdrawn.
"""

from functools import cache


@cache
def iso_exponent(currency: str) -> int | None:
    """Return the digits after the point, or None: no such currency, or (gold) none defined."""
    # A megabyte with its XML parser, for processes that open accounts.
    from iso4217 import Currency

    try:
        return Currency(currency).exponent
    except ValueError:
        return None
