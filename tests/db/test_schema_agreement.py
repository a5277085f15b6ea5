"""The database and pydantic read the same payload: one verdict, but for what is documented.

SQL is never stricter. Where it is laxer, a schema cannot say the rule (docs/doors.md lists them),
and the worker decides.
"""

import json
import re
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from typing import Annotated, ClassVar, Literal
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    WithJsonSchema,
)

from jobs import Payload, registry
from tests.examples import examples
from worker.cli.contract.jobs_page import resolved

pytestmark = pytest.mark.examples

ID = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


def _price(value: object) -> Decimal:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}\.[0-9]{2}", value):
        return Decimal(value)
    raise ValueError("not a price")


Price = Annotated[
    Decimal,
    BeforeValidator(_price),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^[0-9]{1,9}\.[0-9]{2}$", "examples": ["12.34"]}),
]
"""A type with a schema of its own."""


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Nested(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    number: int
    maybe: str | None = None


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    pet: Literal["cat"]
    lives: int


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    pet: Literal["dog"]
    tricks: list[str]


class Everything(Payload):
    """Every type of field that a payload of JSON can have."""

    kind: ClassVar[str] = "everything"

    whole: int
    positive: Annotated[int, Field(ge=1, lt=10)]
    real: Annotated[float, Field(gt=0.5, le=2)]
    yes: bool
    id: UUID
    day: date
    moment: datetime
    short: Annotated[str, Field(max_length=3)]
    code: Annotated[str, Field(pattern=r"^[a-z]+-[0-9]{2}$")]
    amount: Price
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None = None
    colour: Colour
    level: Literal["high", "low"]  # no numbers: pydantic takes `true` for a literal 1
    fixed: Literal["one"] = "one"
    pair: tuple[int, str]
    few: Annotated[list[int], Field(min_length=1, max_length=3)]
    unique: Annotated[set[int], Field(min_length=1)]
    counts: dict[str, int]
    nested: Nested
    many: list[Nested] = []  # noqa: RUF012 - pydantic copies it
    pet: Annotated[Cat | Dog, Field(discriminator="pet")]


TEXTS = [
    *(
        "",
        "a",
        "ab-12",
        "AB-12",
        "ab-12\n",
        "\nab-12",
        "é",
        "Ⅷ",
        "١٢",
        "abc",
        "abcd",
        "👩‍👩‍👧",
        " ",
    ),
    *(
        "EUR",
        "eur",
        "EURO",
        "EUR\n",
        "ÉUR",
        "12.34",
        "12.",
        ".5",
        "0",
        "0.00",
        "00.10",
        "-1",
        "1e3",
    ),
    *("0.00001", "1" * 15, "1" * 16, "12,34", "+1", "NaN", "12.34\n", "١", "1_0", "0x1"),
    *(ID, ID.upper(), ID.replace("-", ""), f"{{{ID}}}", f"urn:uuid:{ID}", f"URN:UUID:{ID}"),
    *(
        f" {ID}",
        f"{ID}\n",
        ID[:-1],
        f"{ID}0",
        ID.replace("a", "g"),
        f"{{{ID}",
        ID.replace("-", "", 1),
    ),
    *("2024-02-29", "2023-02-29", "2024-1-1", "0000-01-01", "0001-01-01", "9999-12-31", "today"),
    *("20240101", "1704067200", "1704067200.5", "-1", "now", "infinity", "2024-02-29T00:00:00"),
    *("2024-02-29T23:59:59Z", "2024-02-29 23:59", "2024-02-29T24:00:00", "2024-02-29T23:59:60Z"),
    *("2024-02-29t01:02:03.123456789z", "2024-02-29_01:02:03,5+0130", "2024-02-29T01:02:03+01"),
    *("2024-02-29T01:02:03−01:00", "2024-02-29T01:02:03+24:00", "2024-02-30T01:02:03Z"),
    *(
        "red",
        "RED",
        "high",
        "one",
        "cat",
        "dog",
        "account_statement",
        "csv",
        "UTC",
        "Europe/Berlin",
    ),
    *("ada", "ada lovelace", "ada@example.org", "tab\tbed", "null", "true"),
]
NUMBERS = [0, 1, -1, 2, 9, 10, 1.0, 0.5, 0.50001, 2.0, 2.5, 1e2, 1e300, 2**53, 2**63, 2**64, 10**30]
SCALARS = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.none(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=5),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)


PLAIN = {
    "string": st.sampled_from(TEXTS),
    "integer": st.sampled_from(NUMBERS),
    "number": st.sampled_from(NUMBERS),
    "boolean": st.booleans(),
}


def near(schema, root):
    """Values that fit a schema, or nearly: every part may be something else instead."""
    schema = resolved(schema, root)
    return st.one_of(_fitting(schema, root), _fitting(schema, root), ANYTHING)


def _fitting(schema, root):
    options = schema.get("anyOf", schema.get("oneOf"))
    if options:
        return st.one_of(*(near(option, root) for option in options))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "examples" in schema:
        return st.sampled_from([*schema["examples"], *TEXTS])
    if schema.get("type") in ("object", "array"):
        return _object(schema, root) if schema["type"] == "object" else _array(schema, root)
    return PLAIN.get(schema.get("type"), ANYTHING)


def _array(schema, root):
    first = [near(one, root) for one in schema.get("prefixItems", [])]
    if first:
        return st.tuples(*first).map(list) | st.lists(ANYTHING, max_size=3)
    return st.lists(near(schema.get("items", {}), root), max_size=4)


def _object(schema, root):
    required = set(schema.get("required", ()))
    fields = {name: near(field, root) for name, field in schema.get("properties", {}).items()}
    more = schema.get("additionalProperties")
    if isinstance(more, dict):
        return st.dictionaries(st.sampled_from(["x", "y"]), near(more, root), max_size=2)
    whole = st.fixed_dictionaries(
        {name: one for name, one in fields.items() if name in required},
        optional={name: one for name, one in fields.items() if name not in required},
    )
    return whole | st.tuples(whole, st.sampled_from([*fields, "extra"]), ANYTHING).map(_spoiled)


def _spoiled(parts):
    """Leave a field out, or add one."""
    whole, name, value = parts
    return (
        {**whole, name: value} if name not in whole else {k: whole[k] for k in whole if k != name}
    )


# Rules that a schema cannot say. Each is a kind of pydantic error, and the fields it may be about.
LAXER = {
    "value_error": {"username", "email", "timezone", ""},  # spaces; zones; rules between fields
    "greater_than_equal": {"first_day", "last_day"},  # the limits of a date
    "less_than_equal": {"first_day", "last_day"},
    "date_from_datetime_inexact": {"first_day", "last_day", "day"},  # a unix time in a string
    "date_parsing": {"first_day", "last_day", "day"},
    "date_from_datetime_parsing": {"first_day", "last_day", "day"},
    "datetime_parsing": {"moment"},
    "finite_number": {"real"},
}


def is_documented(error):
    """Tell whether all that pydantic found is what a schema cannot say."""
    found = error.errors(include_url=False, include_context=False)
    return all(
        str(one["loc"][0] if one["loc"] else "") in LAXER.get(one["type"], ())
        and (not one["type"].startswith("date") or _is_unix_time(one["input"]))
        for one in found
    )


def _is_unix_time(value):
    return (
        isinstance(value, str)
        and re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)", value) is not None
    )


@pytest.fixture(scope="module")
def connection(database_url):
    with psycopg.connect(database_url, autocommit=True) as made:
        yield made


@cache
def schema_text(payload):
    return json.dumps(payload.model_json_schema())


VERDICT = """
    SELECT schema_fault(schema, value, 'payload', schema), value::text
    FROM (SELECT %s::jsonb AS schema, %s::jsonb AS value OFFSET 0) AS given
"""


def verdicts(connection, payload, value):
    """Return what the database and pydantic say of a value, as the database would store it."""
    given = schema_text(payload), json.dumps(value)
    fault, stored = connection.execute(VERDICT, given).fetchone()
    try:
        payload.model_validate_json(stored)
    except ValidationError as error:
        return fault, error
    return fault, None


PAYLOADS = [Everything, *(job.payload for job in registry().values())]


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda one: one.kind)
def test_both_read_a_payload_alike(connection, payload):
    schema = payload.model_json_schema()

    @settings(
        max_examples=examples(600),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(near(schema, schema))
    def check(value):
        fault, error = verdicts(connection, payload, value)
        if error is None:
            assert fault is None, f"SQL is stricter: {fault}"
        elif fault is None:
            assert is_documented(error), f"SQL is laxer: {error.errors(include_url=False)}"

    check()


VALID = {
    "whole": 5,
    "positive": 1,
    "real": 1.5,
    "yes": True,
    "id": ID,
    "day": "2024-02-29",
    "moment": "2024-02-29T01:02:03Z",
    "short": "abc",
    "code": "ab-12",
    "amount": "12.34",
    "colour": "red",
    "level": "high",
    "pair": [1, "x"],
    "few": [1],
    "unique": [1, 1],
    "counts": {"x": 1},
    "nested": {"number": 1},
    "pet": {"pet": "cat", "lives": 9},
}


@pytest.mark.parametrize("name", sorted(VALID))
def test_every_field_is_read_alike_when_only_it_differs(connection, name):
    schema = Everything.model_json_schema()
    assert verdicts(connection, Everything, VALID) == (None, None)

    @settings(max_examples=examples(200), deadline=None, derandomize=True, database=None)
    @given(near(schema["properties"][name], schema))
    def check(value):
        fault, error = verdicts(connection, Everything, {**VALID, name: value})
        if error is None:
            assert fault is None, f"SQL is stricter: {fault}"
        elif fault is None:
            assert is_documented(error), f"SQL is laxer: {error.errors(include_url=False)}"

    check()


def test_a_fault_names_the_place_and_never_the_value(connection):
    fault, error = verdicts(connection, Everything, {**VALID, "nested": {"number": "sesame"}})

    assert error is not None
    assert fault == "payload.nested.number is a string, not a integer"
