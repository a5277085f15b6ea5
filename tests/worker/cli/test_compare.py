"""The rule of `compat`: words may change and optional fields may come; all else is a new kind."""

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, create_model

from jobs import Payload, registry
from worker.cli.contract.compare import breaking_changes
from worker.cli.contract.schema import contract_of

ABSENT = object()


class Place(BaseModel):
    """Where something is."""

    street: str


class Old(Payload):
    """As it was deployed."""

    kind: ClassVar[str] = "made"

    name: Annotated[str, Field(max_length=10)]
    shape: Literal["round", "square"]
    count: Annotated[int, Field(ge=0)] = 1
    note: str | None = None
    title: str = "none"


def with_fields(base=Old, **changes):
    """Return a payload with the old one's fields, but for some."""
    kept: dict[str, Any] = {
        name: (field.annotation, field) for name, field in base.model_fields.items()
    } | changes
    fields = {name: field for name, field in kept.items() if field is not ABSENT}
    return create_model("Old", __base__=Payload, **fields)


def contract(payload, result=None):
    return {"made": {"payload": payload.model_json_schema(), "result": result}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"note": ABSENT}, "made.payload.note: the field is gone"),
        ({"title": ABSENT}, "made.payload.title: the field is gone"),
        ({"more": (str, ...)}, "made.payload.more: is required now"),
        ({"count": (Annotated[int, Field(ge=0)], ...)}, "made.payload.count: is required now"),
        ({"name": (Annotated[str, Field(max_length=10)], "x")}, "made.payload.name: is optional"),
        ({"name": (Annotated[str, Field(max_length=9)], ...)}, '"maxLength":9'),
        ({"name": (Annotated[str, Field(max_length=11)], ...)}, '"maxLength":11'),
        ({"name": (UUID, ...)}, "made.payload.name: was"),
        ({"name": (int, ...)}, "made.payload.name: was"),
        ({"shape": (Literal["round"], ...)}, "made.payload.shape: was"),
        ({"shape": (Literal["round", "square", "flat"], ...)}, "made.payload.shape: was"),
        ({"count": (Annotated[int, Field(ge=0)], 2)}, '"default":1'),
        ({"count": (Annotated[float, Field(ge=0)], 1)}, "made.payload.count: was"),
        ({"title": (str, "other")}, "made.payload.title: was"),
        ({"note": (str, "")}, "made.payload.note: was"),
    ],
)
def test_any_other_change_is_said_with_its_place(fields, said):
    found = breaking_changes(contract(Old), contract(with_fields(**fields)))

    assert any(said in change for change in found), found


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"more": (str | None, None)},
        {"more": (Place | None, None)},
        {"name": (Annotated[str, Field(max_length=10, description="new", examples=["x"])], ...)},
        {"note": (Annotated[str | None, Field(deprecated=True, title="Other")], None)},
    ],
)
def test_new_words_and_new_optional_fields_are_allowed(fields):
    assert breaking_changes(contract(Old), contract(with_fields(**fields))) == []


def test_the_rule_holds_in_nested_models_too():
    before = with_fields(place=(Place, ...))
    grown = with_fields(place=(create_model("Place", __base__=Place, floor=(int, 0)), ...))
    narrower = with_fields(place=(create_model("Place", street=(int, ...)), ...))

    assert breaking_changes(contract(before), contract(grown)) == []
    assert (
        "made.payload (Place).street: was"
        in breaking_changes(contract(before), contract(narrower))[0]
    )


def test_a_default_is_a_value_even_where_its_keys_look_like_words():
    before = with_fields(place=(dict[str, str], {"title": "here"}))
    after = with_fields(place=(dict[str, str], {"title": "there"}))

    assert len(breaking_changes(contract(before), contract(after))) == 1


def test_a_payload_that_is_open_now_is_said():
    closed, opened = Old.model_json_schema(), Old.model_json_schema()
    del opened["additionalProperties"]
    found = breaking_changes(
        {"made": {"payload": closed, "result": None}}, {"made": {"payload": opened, "result": None}}
    )

    assert found == ["made.payload: additionalProperties was false, is null now"]


def test_a_kind_that_is_gone_is_said_and_a_new_one_is_not():
    assert "the kind is gone" in breaking_changes(contract(Old), {})[0]
    assert breaking_changes({}, contract(Old)) == []


def test_the_contract_of_this_code_is_compatible_with_itself():
    contract = contract_of(registry())

    assert breaking_changes(contract, contract) == []


def result(**fields):
    made = create_model("Made", **fields).model_json_schema(mode="serialization")
    return contract(Old, made)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (result(), "made.result.id: the field is gone"),
        (result(id=(int, ...)), "made.result.id: was"),
        (result(id=(str | None, ...)), "made.result.id: was"),
        (result(id=(str, "")), "made.result.id: was"),
        (result(id=(list[str], ...)), "made.result.id: was"),
        (contract(Old), "made.result: there is none any more"),
    ],
)
def test_a_result_keeps_its_fields_as_they_are(new, said):
    found = breaking_changes(result(id=(str, ...)), new)

    assert any(said in change for change in found), found


@pytest.mark.parametrize("more", [(str, ...), (str, ""), (Place, ...)])
def test_a_result_may_come_and_may_get_fields_of_any_sort(more):
    grown = result(id=(str, ...), more=more)

    assert breaking_changes(result(id=(str, ...)), grown) == []
    assert breaking_changes(contract(Old), grown) == []


def test_the_rule_for_results_holds_in_nested_models_too():
    before = result(place=(Place, ...))
    grown = result(place=(create_model("Place", __base__=Place, floor=(int, ...)), ...))
    poorer = result(place=(create_model("Place", floor=(int, ...)), ...))

    assert breaking_changes(before, grown) == []
    assert breaking_changes(before, poorer) == ["made.result (Place).street: the field is gone"]


def test_values_of_another_type_under_free_names_break_a_result():
    before, after = result(by_name=(dict[str, int], ...)), result(by_name=(dict[str, str], ...))

    assert len(breaking_changes(before, after)) == 1
