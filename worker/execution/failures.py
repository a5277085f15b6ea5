"""What the record says of an error: enough to act on, and nothing private.

Constraint violations quote the offending value in their DETAIL, and validation errors could quote
the input. Neither is kept.
"""

from typing import TYPE_CHECKING, Final

from asyncpg.exceptions import PostgresError
from sqlalchemy.exc import DBAPIError

from db.errors import sqlstate_of
from db.execution import Failure

if TYPE_CHECKING:
    from pydantic import ValidationError

MESSAGE_CHARACTERS_MAX: Final = 500
FIELDS_NAMED_MAX: Final = 10


def describe(error: BaseException) -> Failure:
    """Return the record's form of an exception."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    message = str(cause)
    if isinstance(error, DBAPIError | PostgresError):
        # Only the first line: DETAIL, on the second, quotes values.
        message = message.partition("\n")[0].rpartition(">: ")[2]
    return Failure(type(cause).__name__, message[:MESSAGE_CHARACTERS_MAX], sqlstate_of(error))


def invalid_payload(message: str) -> Failure:
    """Return the failure of a payload that does not fit its kind."""
    return Failure("InvalidPayload", message[:MESSAGE_CHARACTERS_MAX])


def not_a_job() -> Failure:
    """Return the failure of a queue entry that is no job at all."""
    return Failure(
        "MalformedJob",
        "not a job in JSON: give the arq client a JSON serializer, as in the README",
    )


def unknown_kind(kind: str) -> Failure:
    """Return the note on a job that waits for a worker that knows its kind."""
    return Failure("UnknownKind", f"no worker here knows the kind {kind[:100]!r}")


def validation_message(error: "ValidationError") -> str:
    """Return which fields are wrong and why, without their values."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    parts = [f"{_path(fault['loc'])}: {fault['msg']}" for fault in faults[:FIELDS_NAMED_MAX]]
    more = len(faults) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "payload"
