import sys
from decimal import Decimal
from unicodedata import category

import pytest
import regex
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


username = TypeAdapter(Username)

VISIBLE = {
    "a letter": "a",
    "digits": "42",
    "punctuation": "_-_",
    "a letter of its own mark": "e\u0301",
    "Persian with a non-joiner": "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
    "Hindi with a joiner": "\u0915\u094d\u200d\u0937",
    "Sinhala with a joiner": "\u0dc1\u0dca\u200d\u0dbb\u0dd3",
    "an emoji family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "a heart in colour": "\u2764\ufe0f",
    "the flag of Wales": "\U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    "a variant of an ideograph": "\u845b\U000e0100",
    "Mongolian with a vowel separator's neighbour": "\u1820\u180b",
    "a word copied with its soft hyphen": "ada\u00admant",
    "a name copied with a word joiner": "\u2060ada",
    "Braille": "\u2801",
    "a syllable after a filler": "\u115f\u1161",
}


@pytest.mark.parametrize("name", VISIBLE.values(), ids=VISIBLE)
def test_a_name_as_people_write_it_is_taken(name):
    assert username.validate_python(name) == name


NOT_ONE_VISIBLE_WORD = {
    "nothing": "",
    "too much": "x" * 65,
    "two words": "a b",
    "a tab": "a\tb",
    "a line break": "a\nb",
    "a no-break space": "a\u00a0b",
    "an ideographic space": "a\u3000b",
    "a space without width": "a\u200bb",
    "a line separator": "a\u2028b",
    "a control character": "a\u0000",
    "an escape": "a\u001b[31m",
    "a change of direction": "ada\u202ecod.exe",
    "an isolate": "\u2066ada\u2069",
    "a mark of direction": "ada\u200f",
    "an annotation": "ada\ufff9x\ufffb",
    "a private character": "\ue000",
    "a private character of a plane": "a\U0010fffd",
    "a noncharacter": "a\ufdd0",
    "the last noncharacter": "a\U0010ffff",
    "half a character": "a\ud800",
    "a joiner": "\u200d",
    "a non-joiner and a selector": "\u200c\ufe0f",
    "a soft hyphen": "\u00ad",
    "the Hangul filler": "\u3164",
    "fillers of a syllable": "\u115f\u1160",
    "half a width of filler": "\uffa0",
    "a blank of Braille": "\u2800",
    "a blank hieroglyph": "\U00013441",
    "the notehead that is none": "\U0001d159",
    "a place for an object": "\ufffc",
    "a mark": "\u0301",
    "marks": "\u0301\u0489\u20dd",
    "a spacing mark": "\u093e",
    "the grapheme joiner": "\u034f",
    "a mark on a filler": "\u3164\u0301",
    "tags": "\U000e0061\U000e0062",
    "a code point kept for what is ignorable": "\U000e0fff",
}


@pytest.mark.parametrize("name", NOT_ONE_VISIBLE_WORD.values(), ids=NOT_ONE_VISIBLE_WORD)
def test_a_username_is_one_visible_word(name):
    with pytest.raises(ValidationError):
        username.validate_python(name)


def every(pattern):
    """Return each code point that has a property, by tables that are newer than Python's."""
    return regex.findall(pattern, "".join(map(chr, range(sys.maxunicode + 1))))


def refused(names):
    """Return those that are no username, as numbers that a report can show."""
    return [f"U+{ord(name[0]):04X}" for name in names if not is_username(name)]


def is_username(name):
    try:
        username.validate_python(name)
    except ValidationError:
        return False
    return True


def test_nothing_that_unicode_calls_ignorable_is_a_name_by_itself():
    ignorable = every(r"\p{Default_Ignorable_Code_Point}")

    assert len(refused(ignorable)) == len(ignorable) > 4000


@pytest.mark.parametrize("kind", ["Zs", "Zl", "Zp", "Cc", "Cf", "Mn", "Mc", "Me"])
def test_no_mark_separator_or_format_character_is_a_name_by_itself(kind):
    found = [one for one in every(rf"\p{{{kind}}}") if category(one) != "Cn"]

    assert len(refused(found)) == len(found) > 0


def test_every_letter_and_emoji_is_a_name_however_old_the_interpreter_is():
    # With what Unicode reserves for more of them, which is newer than any Python.
    assert refused(every(r"\p{Extended_Pictographic}")) == []
    assert refused(every(r"(?V1)[\p{L}\p{N}--\p{Default_Ignorable_Code_Point}]")) == [
        "U+13441",  # the blank hieroglyphs
        "U+13442",
    ]


def test_a_refusal_names_the_rule_that_was_broken():
    reasons = {}
    for name in ("a b", "a\u202eb", "\u3164"):
        with pytest.raises(ValidationError) as caught:
            username.validate_python(name)
        reasons[name] = caught.value.errors()[0]["msg"]

    assert "spaces" in reasons["a b"]
    assert "control" in reasons["a\u202eb"]
    assert "visible" in reasons["\u3164"]
