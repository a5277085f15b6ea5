"""What is kept of an error: never a value of the payload, unless the operator asked for it."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import ClassVar

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import text

from jobs import Job, Payload, Policy, Retry
from tests.worker.execution.test_executor import delivery_of, toys
from worker.execution.delivery import with_payload
from worker.execution.error_text import REDACTED, describe, printable, read_private, redact

__all__ = ["toys"]

PRIVATE = {
    "name": "Ada Lovelace",
    "email": "ada@example.com",
    "amount": "1234.50",
    "pin": 4711,
    "born": "1815-12-10T00:00:00Z",
    "tags": ["maths", {"phone": "+44 20 7946 0000"}],
    "quote": 'she said "yes" \\o/',
    "by_address": {"ada@home.example": 1},
    "initial": "A",
}


class Person(Payload):
    """What is private about somebody."""

    kind: ClassVar[str] = "person"
    name: str
    email: str
    amount: Decimal
    pin: int
    born: datetime
    id: uuid.UUID


class Row(BaseModel):
    user_id: int
    by_name: dict[str, int]


@pytest.mark.parametrize(
    "message",
    [
        "no account for ada@example.com",
        "no account for ADA@Example.com",
        "Ada Lovelace is unknown",
        "bad amount 1234.50",
        "bad amount 1234.5",
        "pin 4711 is wrong",
        "(4711,)",
        "cannot call +44 20 7946 0000",
        f"quoted: {PRIVATE['quote']!r}",
        f"as JSON: {orjson.dumps(PRIVATE['quote']).decode()}",
        "unknown key 'ada@home.example'",
        "user A is gone",
        repr(PRIVATE),
    ],
)
def test_a_message_that_quotes_the_payload_is_kept_without_the_quote(message):
    kept = describe(ValueError(message), read_private(orjson.dumps(PRIVATE).decode())).message

    assert REDACTED in kept
    for value in ("ada@", "lovelace", "1234.5", "4711", "7946", "yes", "home"):
        assert value not in kept.lower()


def test_words_that_are_no_values_stay():
    kept = redact("email: an account of 14711 and Anna, in 4711.5 tries", PRIVATE)

    assert kept == "email: an account of 14711 and Anna, in 4711.5 tries"


def test_values_that_python_writes_in_its_own_way_are_known_as_well():
    person = Person(
        name="Ada",
        email="ada@example.com",
        amount=Decimal("7.10"),
        pin=12,
        born=datetime(1815, 12, 10, tzinfo=UTC),
        id=uuid.UUID("018f2f6e-5c1a-7000-8000-000000000001"),
    )
    kept = redact(f"{person.born} {person.born.isoformat()} {person.amount} {person.id}", person)

    assert kept == " ".join([REDACTED] * 4)


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), st.text(min_size=4)))
def test_no_text_of_a_payload_survives_in_a_message_made_of_it(payload):
    private = {name: value for name, value in payload.items() if value.strip()}
    for value in private.values():
        assert value not in redact(f"cannot use {value}, sorry", private).replace(REDACTED, "")


def test_pydantics_own_message_is_kept_without_its_input():
    with pytest.raises(ValueError) as wrong:  # noqa: PT011 - pydantic's is one
        Row.model_validate({"user_id": "ada@example.com", "by_name": {"Ada": "x"}})
    failure = describe(wrong.value, {})

    assert failure.error == "ValidationError"
    assert failure.message == "2 wrong in Row: user_id: int_parsing; by_name.Ada: int_parsing"


def job_of(handler):
    return Job(
        payload=delivery_payload(), handler=handler, policy=Policy(retry=Retry(attempts_max=1))
    )


def delivery_payload():
    class Loose(Payload):
        kind: ClassVar[str] = "toy"
        email: str

    return Loose


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT CAST(CAST(:v AS text) AS uuid)",
        "SELECT CAST(CAST(:v AS text) AS integer)",
        "SELECT to_date(CAST(:v AS text), 'YYYY-MM-DD')",
        "SELECT CAST(CAST(:v AS text) AS varchar(3))::uuid",
        "DO $$ BEGIN RAISE EXCEPTION 'nobody is called ada@example.com'; END $$",
        'SELECT "ada@example.com"',
    ],
)
async def test_what_postgresql_quotes_is_not_kept(toys, statement):
    async def ask(ctx, payload):
        bound = {"v": payload.email} if ":v" in statement else {}
        await ctx.store.session.execute(text(statement), bound)

    delivery = with_payload(delivery_of(), {"email": "ada@example.com"})
    await toys.executor.run(job_of(ask), delivery)
    errors = await toys.errors(delivery)

    assert errors
    assert errors[0]["sqlstate"]
    assert "ada" not in str(errors).lower()


async def test_an_operator_may_ask_for_whole_texts(toys):
    async def fail(_ctx, payload):
        raise ValueError(f"no account for {payload.email}")

    delivery = with_payload(delivery_of(), {"email": "ada@example.com"})
    toys.executor._error_text = "full"
    await toys.executor.run(job_of(fail), delivery)

    assert (await toys.errors(delivery))[0]["message"] == "no account for ada@example.com"


@given(st.text(max_size=300))
def test_what_is_kept_can_be_stored_and_sent(message):
    kept = printable(message + "\ud800\x00", 200)

    assert len(kept) <= 200
    assert "\x00" not in kept
    kept.encode()
