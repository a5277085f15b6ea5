"""What is kept of an exception: enough to act on, nothing private, always printable.

A message that a job's code raises may quote what the job was given. Unless the operator asked for
whole texts (`TELLER_ERROR_TEXT=full`), every value of the payload is taken out of it, in the forms
in which Python writes it. pydantic's own messages are rebuilt without their inputs; of PostgreSQL's
only the first line is kept, since DETAIL quotes rows, and without the value that it could not read.
What a handler reads elsewhere and raises in a message of its own is not recognised.
"""

import json
import re
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal

from asyncpg.exceptions import PostgresError
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError

from db.errors import sqlstate_of
from db.execution import Failure
from worker.execution.commit import EscapeError

if TYPE_CHECKING:
    from collections.abc import Iterator

ErrorText = Literal["redacted", "full"]

MESSAGE_CHARACTERS_MAX: Final = 500
NAME_CHARACTERS_MAX: Final = 100
LOOKED_AT_CHARACTERS_MAX: Final = 20_000
"""Of a message, before its private parts are taken out."""
VALUES_MAX: Final = 5_000
SHORT_CHARACTERS_MAX: Final = 3
"""A text this short is taken out only where it is a whole word."""
REDACTED: Final = "[redacted]"
UNPRINTABLE: Final = "its message cannot be printed"

DATA_EXCEPTION: Final = "22"
"""The SQLSTATE class whose messages quote the value that could not be used."""

_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_QUOTED: Final = re.compile(r'".*"|".*$')
_NUMERIC: Final = re.compile(r"[+-]?[0-9.]+(?:[eE][+-]?[0-9]+)?")


def describe(error: BaseException, *private: object) -> Failure:
    """Return what is kept of an exception; never fails.

    Args:
        error: whatever was raised.
        private: values that must not be kept, in any of their parts: a payload, as JSON or parsed.
            None: the text is kept as it is.
    """
    try:
        cause = _shown(error)
        name = printable(type(cause).__name__, NAME_CHARACTERS_MAX)
        message = _message(error, cause)
        if private:
            message = redact(message, *private)
        return Failure(name, printable(message, MESSAGE_CHARACTERS_MAX), _sqlstate(error))
    except BaseException:  # noqa: BLE001 - properties of somebody's exception can raise anything
        return Failure("Unprintable", UNPRINTABLE)


def printable(text: str, characters_max: int) -> str:
    """Return text that UTF-8, jsonb and a terminal can hold, and not too much of it."""
    kept = str(text)[: 2 * characters_max].encode("utf-8", "backslashreplace").decode()
    return kept.replace("\x00", "\\x00")[:characters_max]


def redact(message: str, *private: object) -> str:
    """Return a message without any value of what is private, whatever its case."""
    long, words = set[str](), set[str]()
    for value in private:
        for number, form in enumerate(_forms(value)):
            if number >= VALUES_MAX:
                return REDACTED
            is_word = len(form) <= SHORT_CHARACTERS_MAX or _NUMERIC.fullmatch(form)
            (words if is_word else long).add(form)
    patterns = [re.escape(form) for form in sorted(long, key=len, reverse=True)]
    if words:
        shortest_last = sorted(words, key=len, reverse=True)
        patterns.append(rf"(?<![\w.])(?:{'|'.join(map(re.escape, shortest_last))})(?![\w]|\.\d)")
    if not patterns:
        return message
    return re.sub("|".join(patterns), REDACTED, message, flags=re.IGNORECASE)


def _shown(error: BaseException) -> BaseException:
    if isinstance(error, EscapeError) and error.__cause__ is not None:
        return error.__cause__
    if isinstance(error, DBAPIError) and error.orig is not None:
        # SQLAlchemy's copy of the driver's error is made from it; its class has the driver's name.
        return error.orig
    return error


def _sqlstate(error: BaseException) -> str | None:
    with suppress(Exception):
        return sqlstate_of(error)
    return None


def _message(error: BaseException, cause: BaseException) -> str:
    if isinstance(cause, ValidationError):
        return _validation_text(cause)
    try:
        message = str(cause)[:LOOKED_AT_CHARACTERS_MAX]
    except BaseException:  # noqa: BLE001 - __str__ is the job's code
        return UNPRINTABLE
    if isinstance(error, DBAPIError | PostgresError):
        # SQLAlchemy puts the class before the text, in angle brackets.
        message = message.partition("\n")[0].rpartition(">: ")[2]
        if (_sqlstate(error) or "").startswith(DATA_EXCEPTION):
            message = _QUOTED.sub(REDACTED, message)
    return message


def _validation_text(error: ValidationError) -> str:
    """Return which fields are wrong and how, without what was in them."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [f"{_place(fault['loc'])}: {fault['type']}" for fault in faults[:10]]
    return f"{len(faults)} wrong in {error.title}: {'; '.join(parts)}"


def _place(location: tuple[int | str, ...]) -> str:
    """Return where a fault is; a key that is no field name may be data itself."""
    parts = [
        part if isinstance(part, int) or _FIELD_NAME.fullmatch(part) else "*" for part in location
    ]
    return ".".join(map(str, parts)) or "it"


def _forms(value: object) -> "Iterator[str]":
    """Return the texts that stand for the values in here, at any depth, keys included."""
    waiting: list[object] = [value]
    while waiting:
        match waiting.pop():
            case BaseModel() as model:
                waiting += [getattr(model, name) for name in type(model).model_fields]
            case dict() as fields:
                waiting += fields.values()
                keys = [key for key in fields if not _FIELD_NAME.fullmatch(str(key))]
                waiting += keys
            case list() | tuple() | set() | frozenset() as items:
                waiting += items
            case None | bool():
                pass
            case leaf:
                yield from filter(None, _forms_of_leaf(leaf))


def _forms_of_leaf(leaf: object) -> "Iterator[str]":
    if isinstance(leaf, Enum):
        leaf = leaf.value
    text = str(leaf)
    yield text
    yield text.strip()
    if isinstance(leaf, str):
        yield repr(leaf)[1:-1]
        yield json.dumps(leaf)[1:-1]
    if isinstance(leaf, datetime):
        yield leaf.isoformat()
    if _NUMERIC.fullmatch(text):
        with suppress(ArithmeticError, ValueError):
            yield from _forms_of_number(Decimal(text))


def _forms_of_number(number: Decimal) -> "Iterator[str]":
    """Return a number as Python's types print it."""
    yield str(number)
    yield repr(float(number))
    yield f"{float(number):g}"
    if abs(number.adjusted()) < 40 and number == number.to_integral_value():  # noqa: PLR2004
        yield str(int(number))


def read_private(payload_json: str) -> Any:  # noqa: ANN401 - whatever JSON can hold
    """Return a payload's values, its numbers as they were written."""
    return json.loads(payload_json, parse_float=str, parse_int=str)
