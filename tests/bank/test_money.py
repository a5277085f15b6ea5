from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.bank.money import MINOR_UNITS_MAX, exponent, to_decimal, to_minor_units


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        ("12.34", "EUR", 1234),
        ("12", "EUR", 1200),
        ("1234", "JPY", 1234),
        ("1.234", "KWD", 1234),
        ("92233720368547758.07", "EUR", MINOR_UNITS_MAX),
    ],
)
def test_a_decimal_becomes_minor_units_by_the_currency_s_exponent(amount, currency, minor):
    assert to_minor_units(Decimal(amount), currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency", "verdict"),
    [
        ("0.001", "EUR", "too_many_decimals"),
        ("0.1", "JPY", "too_many_decimals"),
        ("1", "QQQ", "unknown_currency"),
        ("1", "XAU", "unknown_currency"),
        ("92233720368547758.08", "EUR", "amount_too_large"),
    ],
)
def test_what_cannot_be_said_in_minor_units_is_a_verdict(amount, currency, verdict):
    assert to_minor_units(Decimal(amount), currency) == verdict


@given(
    st.integers(-MINOR_UNITS_MAX, MINOR_UNITS_MAX), st.sampled_from(["EUR", "JPY", "KWD", "CLF"])
)
def test_minor_units_survive_the_way_to_a_decimal_and_back(minor, currency):
    decimal = to_decimal(minor, currency)

    assert to_minor_units(decimal, currency) == minor
    assert decimal.as_tuple().exponent == -(exponent(currency) or 0)


def test_a_currency_without_minor_unit_has_no_decimal_form():
    with pytest.raises(ValueError, match="QQQ"):
        to_decimal(1, "QQQ")
