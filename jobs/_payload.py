"""What goes into a job and what comes out: models, their JSON, and its limits."""

import re
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from ._errors import InvalidPayloadError

if TYPE_CHECKING:
    from pydantic import ValidationError

PAYLOAD_BYTES_MAX: Final = 65_536
PAYLOAD_DEPTH_MAX: Final = 100
"""Arrays and objects within each other; deeper, JSON libraries disagree about what they take."""
FIELDS_NAMED_MAX: Final = 10

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')

# PostgreSQL's jsonb cannot hold the character U+0000. An even number of backslashes before the
# escape is so many escaped backslashes.
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Payload(BaseModel):
    """What a caller sends: frozen, closed, strict, JSON on the wire.

    Closed means that a field an older worker does not know is refused: deploy workers first.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        hide_input_in_errors=True,
        allow_inf_nan=False,  # JSON has neither
    )

    kind: ClassVar[str]
    """The name on the wire: stable forever, never a Python path."""

    @classmethod
    def from_wire(cls, raw: object) -> Self:
        """Read what JSON brought, by JSON's own rules (a string for a UUID, never for a number).

        Raises:
            pydantic.ValidationError: it does not fit; the message never repeats the input.
        """
        return cls.model_validate_json(to_json(raw))

    def to_wire(self) -> dict[str, Any]:
        """Return the payload as JSON values, in the form that `payload_json` writes."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def conflict_keys(self) -> tuple[str, ...]:
        """Name what this job contends for; jobs with a key in common run one after another."""
        return ()

    @classmethod
    def is_personal(cls) -> bool:
        """Return whether any field is personal: then only the job's id goes through the queue."""
        return _has_personal(cls)


class Result(BaseModel):
    """What a handler returns when the work is done; stored with the job and sent to callers.

    Closed where it is made, so that a misspelt field is an error; open where a caller reads it, so
    that an older caller takes the result of a newer worker.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")


def payload_json(payload: Payload) -> str:
    """Return the payload in the one form in which it is stored, sent and compared.

    A field that equals its default is left out: then a new optional field changes no payload that
    does not use it, and a key sent again after a deploy still means the same job.

    Raises:
        InvalidPayloadError: it is too long or too deep, or PostgreSQL cannot store it.
    """
    try:
        text = payload.model_dump_json(exclude_defaults=True)
        size = len(text.encode())
    except (ValueError, RecursionError) as error:
        raise InvalidPayloadError(
            f"the payload of {payload.kind} cannot be written as JSON ({type(error).__name__}): "
            "it holds itself, is nested too deep, or has text that is no Unicode"
        ) from None
    if size > PAYLOAD_BYTES_MAX:
        raise InvalidPayloadError(
            f"the payload of {payload.kind} has {size} bytes, more than {PAYLOAD_BYTES_MAX}: "
            "store the bulk elsewhere and send its address"
        )
    opened = text.count("[") + text.count("{")
    if opened > PAYLOAD_DEPTH_MAX and nesting(text) > PAYLOAD_DEPTH_MAX:
        raise InvalidPayloadError(
            f"the payload of {payload.kind} is nested more than {PAYLOAD_DEPTH_MAX} deep"
        )
    if has_nul(text):
        raise InvalidPayloadError(
            f"the payload of {payload.kind} contains the character U+0000, "
            "which PostgreSQL cannot store: remove it"
        )
    return text


def nesting(json_text: str) -> int:
    """Return how deep arrays and objects are nested in JSON text.

    >>> nesting('[[1], {"a": [2, "[[["]}]'), nesting('"["')
    (3, 0)
    """
    depth = deepest = 0
    for mark in _STRING.sub("", json_text):
        if mark in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in "]}":
            depth -= 1
    return deepest


def has_nul(json_text: str) -> bool:
    r"""Return whether JSON text, as pydantic or orjson writes it, holds U+0000.

    >>> has_nul(r'"a\u0000"'), has_nul(r'"a\\u0000"'), has_nul(r'"a\\\u0000"')
    (True, False, True)
    """
    return _NUL.search(json_text) is not None


def validation_message(error: "ValidationError") -> str:
    """Return which fields are wrong and why, without their values."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [
        f"{'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}"
        for fault in faults[:FIELDS_NAMED_MAX]
    ]
    more = len(faults) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")


@cache
def _has_personal(payload: type[Payload]) -> bool:
    """Look for the mark at any depth: in a list, behind an "or None", in a nested model."""
    waiting: list[object] = [payload.model_json_schema()]
    while waiting:
        match waiting.pop():
            case {"personal": True}:
                return True
            case dict() as schema:
                waiting += schema.values()
            case list() as schemas:
                waiting += schemas
    return False
