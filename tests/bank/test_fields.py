from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from jobs._fields import Amount, Currency, Username

amount = TypeAdapter(Amount)


@given(st.decimals("0.0001", "999999999999999", places=4, allow_nan=False))
def test_an_amount_survives_the_way_over_the_wire(value):
    wire = amount.dump_json(amount.validate_python(value))

    assert amount.validate_json(wire) == value


@pytest.mark.parametrize(
    "wire",
    [
        "12.34",
        "12",
        "true",
        '"1e3"',
        '"NaN"',
        '"Infinity"',
        '"-1"',
        '"+1"',
        '"0"',
        '"0.00"',
        '" 1"',
        '"1,5"',
        '"1.23456"',
        '"1234567890123456"',
        '"\\u0661"',
        '""',
        "null",
        "[]",
    ],
)
def test_an_amount_that_is_not_a_plain_positive_decimal_string_is_refused(wire):
    with pytest.raises(ValidationError):
        amount.validate_json(wire, strict=True)


@pytest.mark.parametrize("value", [1.5, 10, True, None])
def test_a_number_is_never_money_in_python_either(value):
    with pytest.raises(ValidationError):
        amount.validate_python(value, strict=True)


def test_a_decimal_in_scientific_form_is_read_as_the_number_it_is():
    assert amount.validate_python(Decimal("1E+3")) == Decimal(1000)


@pytest.mark.parametrize("code", ["eur", "EURO", "EU", "€€€", ""])
def test_a_currency_has_the_shape_of_an_iso_code(code):
    with pytest.raises(ValidationError):
        TypeAdapter(Currency).validate_python(code)


@pytest.mark.parametrize("name", ["a b", "a\tb", "a\u200bb", "a\u0000", "", "x" * 65])
def test_a_username_is_one_visible_word(name):
    with pytest.raises(ValidationError):
        TypeAdapter(Username).validate_python(name)
