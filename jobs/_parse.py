"""From a kind's name and JSON to a payload, with errors that a caller can act on."""

import re
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, to_json

from ._errors import InvalidPayloadError, UnknownKindError
from ._registry import registry

if TYPE_CHECKING:
    from ._job import Payload

PAYLOAD_BYTES_MAX: Final = 65_536
FIELDS_NAMED_MAX: Final = 10

# An even number of backslashes before it is so many escaped ones.
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def parse_payload(kind: str, raw: object) -> "Payload":
    """Return the payload of `kind` that these JSON values make.

    Raises:
        UnknownKindError: there is no such kind.
        InvalidPayloadError: they do not fit it; the message names the fields, never their values.
    """
    job = registry().get(kind)
    if job is None:
        raise UnknownKindError(
            f"unknown job kind {kind[:100]!r}; known kinds: {', '.join(registry())}"
        )
    try:
        return job.payload.from_wire(raw)
    except ValidationError as error:
        raise InvalidPayloadError(f"invalid payload for {kind}: {fields_at_fault(error)}") from None
    except (PydanticSerializationError, ValueError) as error:
        raise InvalidPayloadError(f"invalid payload for {kind}: not JSON ({error})") from None


def payload_json(payload: "Payload") -> str:
    """Return the payload as it is stored and sent.

    Raises:
        InvalidPayloadError: no door takes it.
    """
    body = to_json(payload.to_wire())
    if len(body) > PAYLOAD_BYTES_MAX:
        raise InvalidPayloadError(
            f"the payload of {payload.kind} has {len(body)} bytes, more than {PAYLOAD_BYTES_MAX}: "
            "store the bulk elsewhere and send its address"
        )
    text = body.decode()
    if has_nul(text):
        raise InvalidPayloadError(
            f"the payload of {payload.kind} contains the character U+0000, "
            "which PostgreSQL cannot store: remove it"
        )
    return text


def has_nul(json_text: str) -> bool:
    r"""Tell whether JSON as `to_json` writes it holds U+0000.

    >>> has_nul(r'"a\u0000"'), has_nul(r'"a\\u0000"'), has_nul(r'"a\\\u0000"')
    (True, False, True)
    """
    return _NUL.search(json_text) is not None


def fields_at_fault(error: ValidationError) -> str:
    """Return which fields are wrong and why, without their values."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [
        f"{'.'.join(map(str, fault['loc'])) or 'payload'}: {fault['msg']}"
        for fault in faults[:FIELDS_NAMED_MAX]
    ]
    more = len(faults) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")
