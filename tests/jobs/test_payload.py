"""`jobs._payload` and `parse_payload`: what may go into a job, and in which form it is kept."""

import json
import math
from decimal import Decimal
from typing import Annotated, ClassVar
from uuid import UUID

import pytest
from pydantic import Field, ValidationError

from jobs import InvalidPayloadError, Payload, UnknownKindError, parse_payload
from jobs._payload import FIELDS_NAMED_MAX, PAYLOAD_BYTES_MAX, payload_json, validation_message
from tests.letters import SendLetter


class Note(Payload):
    """A payload with a field of its own default."""

    kind: ClassVar[str] = "note"

    text: str
    copies: int = 1
    weight: float = 0.0
    to: Annotated[str, Field(json_schema_extra={"personal": True})] | None = None


class Letter(Payload):
    """A payload whose personal field is deep inside."""

    kind: ClassVar[str] = "letter"

    notes: list[Note]


class Parcel(Payload):
    """A payload of what JSON has no type for."""

    kind: ClassVar[str] = "parcel"

    to: UUID
    weight_kg: Decimal


def test_a_payload_has_one_form_whatever_was_written_out():
    assert payload_json(Note(text="ä", copies=1)) == payload_json(Note(text="ä")) == '{"text":"ä"}'


def test_what_is_stored_is_what_was_put_in():
    payload = Parcel(to=UUID(int=1), weight_kg=Decimal("0.10"))

    assert json.loads(payload_json(payload)) == payload.to_wire()
    assert Parcel.model_validate_json(payload_json(payload)) == payload


def test_a_payload_may_be_as_long_as_the_limit_and_no_longer():
    around = len(payload_json(Note(text="")))
    payload_json(Note(text="x" * (PAYLOAD_BYTES_MAX - around)))

    with pytest.raises(InvalidPayloadError, match=f"{PAYLOAD_BYTES_MAX + 1} bytes.*elsewhere"):
        payload_json(Note(text="x" * (PAYLOAD_BYTES_MAX - around + 1)))


def test_a_character_that_postgresql_cannot_store_is_refused():
    with pytest.raises(InvalidPayloadError, match=r"U\+0000"):
        payload_json(Note(text="a\x00"))
    assert payload_json(Note(text="a\\u0000")) == r'{"text":"a\\u0000"}'


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_number_that_json_does_not_have_is_refused(weight):
    with pytest.raises(ValidationError, match="finite"):
        Note(text="a", weight=weight)


def test_a_personal_field_is_found_however_deep_it_is():
    assert Note.is_personal()
    assert Letter.is_personal()
    assert not SendLetter.is_personal()


def test_a_refusal_names_the_fields_and_never_their_values(letters):
    raw = {"pages": "secret", "extra": "secret"}
    with pytest.raises(InvalidPayloadError, match=r"address: .*pages: ") as refused:
        parse_payload("send_letter", raw)

    assert "extra: " in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_refusal_of_many_fields_stays_short():
    with pytest.raises(ValidationError) as refused:
        Letter.from_wire({"notes": [{}] * (FIELDS_NAMED_MAX + 3)})

    message = validation_message(refused.value)
    assert message.count("notes.") == FIELDS_NAMED_MAX
    assert message.endswith("; and 3 more")


def test_what_is_no_json_is_refused(letters):
    with pytest.raises(InvalidPayloadError, match="not JSON"):
        parse_payload("send_letter", {"address": object()})


def test_an_unknown_kind_is_named_with_what_there_is():
    with pytest.raises(UnknownKindError, match=r"'unheard_of'; known kinds: .*purge_record"):
        parse_payload("unheard_of", {})
