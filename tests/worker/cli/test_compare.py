"""`compat` proves that queued jobs survive a deploy: what it passes, the new code really takes."""

import copy
import json
from datetime import date
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, create_model

from jobs import Payload, registry
from worker.cli.contract.compare import breaking_changes
from worker.cli.contract.schema import contract_of

# Types with values that fit them. Many are wider or narrower than each other.
TYPES: list[tuple[Any, list[Any]]] = [
    (str, ["", "a", "abcdef", "EUR"]),
    (Annotated[str, Field(max_length=3)], ["", "abc"]),
    (Annotated[str, Field(min_length=1, max_length=5)], ["a", "abcde"]),
    (Annotated[str, Field(pattern="^[A-Z]{3}$")], ["EUR"]),
    (UUID, ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"]),
    (date, ["2024-02-29"]),
    (Literal["a", "b"], ["a", "b"]),
    (Literal["a", "b", "c"], ["a", "b", "c"]),
    (Literal["a"], ["a"]),
    (int, [0, -5, 10**6]),
    (Annotated[int, Field(ge=0)], [0, 10**6]),
    (Annotated[int, Field(gt=0, lt=100)], [1, 99]),
    (float, [0, 1.5, -2]),
    (bool, [True, False]),
    (str | None, ["a", None]),
    (int | str, [1, "a"]),
    (int | None, [1, None]),
    (list[int], [[], [1, 2, 3]]),
    (Annotated[list[int], Field(min_length=1, max_length=2)], [[1], [1, 2]]),
    (list[float], [[], [1, 2.5]]),
    (set[int], [[], [1, 1]]),
    (tuple[int, str], [[1, "a"]]),
    (tuple[int, ...], [[], [1, 2, 3]]),
    (dict[str, int], [{}, {"x": 1}]),
    (dict[str, Any], [{}, {"x": "y"}]),
    (Any, [1, "a", None, [1], {}]),
]
NAMES = ["one", "two", "three"]
ABSENT = object()


@st.composite
def models(draw):
    """A payload, as field names with a type and perhaps a default."""
    fields = {}
    for name in draw(st.sets(st.sampled_from(NAMES))):
        number = draw(st.integers(0, len(TYPES) - 1))
        default = draw(st.sampled_from([ABSENT, ABSENT, *TYPES[number][1]]))
        fields[name] = (number, default)
    return fields


@st.composite
def changed(draw, fields):
    """The same payload after somebody worked on it."""
    fields = dict(fields)
    for name in draw(st.sets(st.sampled_from(NAMES), max_size=2)):
        # Related types stand near each other: a change is rarely to anything whatever.
        near = fields[name][0] + draw(st.integers(-3, 3)) if name in fields else 0
        number = min(max(near, 0), len(TYPES) - 1)
        default = draw(st.sampled_from([ABSENT, *TYPES[number][1]]))
        if name in fields and draw(st.booleans()):
            del fields[name]
        else:
            fields[name] = (number, default)
    return fields


def payload_of(fields):
    made: dict[str, Any] = {
        name: (TYPES[number][0], ... if default is ABSENT else _as_python(number, default))
        for name, (number, default) in fields.items()
    }
    return create_model("Made", __base__=Payload, **made)


def _as_python(number, default):
    """Return a default as the type has it, so that it is a default that could stand in code."""
    probe = create_model("Probe", __base__=Payload, value=(TYPES[number][0], ...))
    return dict(probe.from_wire({"value": default}))["value"]


def contract(payload):
    return {"made": {"payload": payload.model_json_schema(), "result": None}}


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_what_is_called_safe_takes_every_queued_payload_and_means_the_same(data):
    fields = data.draw(models())
    old, new = payload_of(fields), payload_of(data.draw(changed(fields)))
    assume(not breaking_changes(contract(old), contract(new)))
    queued = {}
    for name, (number, default) in fields.items():
        value = data.draw(st.sampled_from(TYPES[number][1]))
        if default is ABSENT or data.draw(st.booleans()):
            queued[name] = value
    before, after = old.from_wire(queued), new.from_wire(queued)

    for name in old.model_fields:
        assert json.dumps(before.model_dump(mode="json")[name]) == json.dumps(
            after.model_dump(mode="json")[name]
        ) or isinstance(queued.get(name), list | int | float)


def test_of_every_two_types_the_second_takes_what_the_first_took_or_it_is_said():
    made = [payload_of({"one": (number, ABSENT)}) for number in range(len(TYPES))]
    safe = 0
    for old, (_, values) in zip(made, TYPES, strict=True):
        for new in made:
            if not breaking_changes(contract(old), contract(new)):
                safe += 1
                for value in values:
                    new.from_wire({"one": value})

    # Each with itself, and each with "anything", at the least: not everything is called a break.
    assert safe > 2 * len(TYPES)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(models())
def test_no_change_breaks_nothing(fields):
    made = contract(payload_of(fields))

    assert breaking_changes(made, copy.deepcopy(made)) == []


def test_the_contract_of_this_code_is_compatible_with_itself():
    contract = contract_of(registry())

    assert breaking_changes(contract, contract) == []


class Old(Payload):
    kind: ClassVar[str] = "made"

    name: Annotated[str, Field(max_length=10)]
    shape: Literal["round", "square"]
    count: Annotated[int, Field(ge=0)] = 1
    note: str | None = None


def with_fields(**fields):
    kept: dict[str, Any] = {
        "name": (Annotated[str, Field(max_length=10)], ...),
        "shape": (Literal["round", "square"], ...),
        "count": (Annotated[int, Field(ge=0)], 1),
        "note": (str | None, None),
    } | fields
    return create_model(
        "New", __base__=Payload, **{k: v for k, v in kept.items() if v is not ABSENT}
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"note": ABSENT}, "made.payload.note: the field is gone, and queued jobs may have it"),
        ({"more": (str, ...)}, "made.payload.more: is required now, and queued jobs may have none"),
        ({"count": (int, ...)}, "made.payload.count: is required now"),
        ({"name": (Annotated[str, Field(max_length=9)], ...)}, "made.payload.name: maxLength was"),
        ({"name": (Annotated[str, Field(max_length=10, pattern="^a")], ...)}, "name: pattern is"),
        ({"name": (UUID, ...)}, "made.payload.name: format is 'uuid' now"),
        ({"name": (int, ...)}, "made.payload.name: was string, is integer now"),
        ({"shape": (Literal["round"], ...)}, 'made.payload.shape: "square" is not accepted'),
        ({"count": (Annotated[int, Field(ge=1)], 1)}, "made.payload.count: minimum was 0, is 1"),
        ({"count": (Annotated[int, Field(ge=0)], 2)}, "the default was 1, is 2 now"),
        ({"note": (str, "")}, "made.payload.note"),
    ],
)
def test_a_break_is_said_with_its_place(fields, said):
    found = breaking_changes(contract(Old), contract(with_fields(**fields)))

    assert any(said in change for change in found), found


@pytest.mark.parametrize(
    "fields",
    [
        {"more": (str | None, None)},
        {"name": (str, ...)},
        {"name": (Annotated[str, Field(max_length=11)], ...)},
        {"shape": (Literal["round", "square", "flat"], ...)},
        {"count": (int, 1)},
        {"count": (float, 1)},
        {"note": (str | int | None, None)},
        {"name": (Annotated[str, Field(max_length=10, description="new words")], "anon")},
    ],
)
def test_widening_is_safe(fields):
    assert breaking_changes(contract(Old), contract(with_fields(**fields))) == []


def test_a_kind_that_is_gone_is_said():
    assert "the kind is gone" in breaking_changes(contract(Old), {})[0]


def result_contract(**fields):
    made = create_model("Made", __base__=Payload, **fields).model_json_schema(mode="serialization")
    return {"made": {"payload": Old.model_json_schema(), "result": made}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "made.result.id: the field is gone, and clients read it"),
        ({"id": (int, ...)}, "made.result.id: was string, is integer now"),
        ({"id": (str | None, ...)}, "(the other way round)"),
        ({"id": (str, ...), "more": (str, ...)}, "made.result.more: new and required"),
    ],
)
def test_results_are_checked_for_those_who_read_them(fields, said):
    found = breaking_changes(result_contract(id=(str, ...)), result_contract(**fields))

    assert any(said in change for change in found), found


def test_a_new_optional_field_of_a_result_breaks_nobody():
    new = result_contract(id=(str, ...), more=(str, ""))

    assert breaking_changes(result_contract(id=(str, ...)), new) == []


def test_a_refusal_is_a_real_one():
    """The other half of the proof: what the examples call a break does refuse a queued payload."""
    queued = {"name": "abcdefghij", "shape": "square", "count": 0, "note": "x"}
    Old.from_wire(queued)
    for fields in ({"note": ABSENT}, {"more": (str, ...)}, {"shape": (Literal["round"], ...)}):
        with pytest.raises(ValidationError):
            with_fields(**fields).from_wire(queued)
