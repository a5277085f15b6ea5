"""Lines of a file, bounded one by one, and the jobs that they ask for."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from db.enqueue import Candidate
from jobs import ClientError, parse_payload, registry
from jobs._payload import payload_json, validation_message
from jobs._request import KEY_CHARACTERS_MAX, checked_key, checked_time

if TYPE_CHECKING:
    from worker.cli.enqueue.keys import Keys

STDIN: Final = "-"
"""Stands for standard input where a path or JSON may be given."""
LINE_BYTES_MAX: Final = 1024 * 1024
"""Well above the largest payload, with every character escaped."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it stands in the file, without its end."""

    number: int
    text: bytes
    bytes_read: int
    """How many bytes of the file it took, its end included."""
    too_long: bool = False
    """Whether only the beginning is here."""


@dataclass(frozen=True, slots=True)
class JobLine:
    """A line that asks for a job."""

    line: Line
    candidate: Candidate


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that asks for no job that could be enqueued, and why."""

    line: Line
    reason: str


class _Shape(BaseModel):
    """The fields of a line."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    kind: str
    payload: dict[str, Any]
    key: Annotated[str, Field(min_length=1, max_length=KEY_CHARACTERS_MAX)] | None = None
    run_at: AwareDatetime | None = None


def read_lines(source: BinaryIO) -> Iterator[Line]:
    """Read lines, numbered from 1; one that is too long is cut, and its rest is skipped."""
    number = 0
    while text := source.readline(LINE_BYTES_MAX + 1):
        number += 1
        bytes_read = len(text)
        too_long = bytes_read > LINE_BYTES_MAX and not text.endswith(b"\n")
        rest = text
        while too_long and rest and not rest.endswith(b"\n"):
            rest = source.readline(LINE_BYTES_MAX)
            bytes_read += len(rest)
        if number == 1:
            text = text.removeprefix(_BYTE_ORDER_MARK)
        yield Line(number, text.rstrip(b"\r\n"), bytes_read, too_long=too_long)


def parse_line(line: Line, keys: "Keys") -> JobLine | BadLine | None:
    """Return the job that a line asks for, or why there is none; None if the line is blank.

    A line without a key gets one from its content, so that running the file again is safe.
    """
    if not line.text.strip() and not line.too_long:
        return None
    try:
        shape = _shape_of(line)
        checked_key(shape.key)
        run_at = None if shape.run_at is None else checked_time(shape.run_at)
        text = _payload_text(shape)
    except ValidationError as error:
        return BadLine(line, validation_message(error))
    except (ClientError, ValueError) as error:
        return BadLine(line, str(error))
    key = shape.key or keys.of_content(shape.kind, text, run_at)
    return JobLine(line, Candidate(shape.kind, text, key, run_at))


def _shape_of(line: Line) -> _Shape:
    if line.too_long:
        raise ValueError(f"longer than {LINE_BYTES_MAX} bytes")
    try:
        raw = from_json(line.text, allow_inf_nan=False)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError('not an object like {"kind": "…", "payload": {…}}')  # noqa: TRY004 - data
    return _Shape.model_validate(raw)


def _payload_text(shape: _Shape) -> str:
    """Return the payload's JSON in the canonical form that is stored."""
    if shape.kind not in registry():
        # Another version of the worker may know this kind: the database decides.
        return json.dumps(
            shape.payload,
            sort_keys=True,
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
    return payload_json(parse_payload(shape.kind, shape.payload))
