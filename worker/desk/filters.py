"""The filter of a list, as it stands in the address of a page."""

import re
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from uuid import UUID

from pydantic import TypeAdapter, ValidationError

from db.desk import JobLine, Position, Wanted
from db.models import JOB_STATES
from jobs import registry
from worker.desk.payloads import public_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

WORD_CHARACTERS_MAX: Final = 200
AGO_MAX: Final = timedelta(days=3_650)
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_SMALLINT_MAX: Final = 32_767


class FilterError(Exception):
    """An address asks for what cannot be; the message says what can."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a page's address asks for, as text; the names are those of its parameters."""

    state: str = ""
    kind: str = ""
    queue: str = ""
    key: str = ""
    error: str = ""
    since: str = ""
    until: str = ""
    attempts: str = ""
    parent: str = ""
    batch: str = ""
    group: str = ""
    paused: str = ""
    field: str = ""
    """The name of a public field of the payload of `kind`."""
    value: str = ""

    @classmethod
    def read(cls, parameters: "Mapping[str, str]") -> "Asked":
        """Return what an address asks for; parameters of other names are other people's."""
        found = {}
        for one in fields(cls):
            word = parameters.get(one.name, "").strip()
            if len(word) > WORD_CHARACTERS_MAX or "\x00" in word:
                raise FilterError(f"{one.name} has at most {WORD_CHARACTERS_MAX} characters")
            found[one.name] = word
        return cls(**found)

    def query(self, **changed: str) -> str:
        """Return the address's query with some words changed, without those that are empty."""
        words = {one.name: getattr(self, one.name) for one in fields(self)} | changed
        return urlencode({name: word for name, word in words.items() if word})

    def as_dict(self) -> dict[str, str]:
        """Return the words that are given."""
        return {one.name: word for one in fields(self) if (word := getattr(self, one.name))}

    def wanted(self, now: datetime | None = None) -> Wanted:
        """Return which jobs are asked for.

        Raises:
            FilterError: a word is none that could be; the message says what is.
        """
        now = now or datetime.now(UTC)
        if self.state and self.state not in JOB_STATES:
            raise FilterError(f"a state is one of {', '.join(JOB_STATES)}")
        if self.group and re.fullmatch("[0-9a-f]{16}", self.group) is None:
            raise FilterError("a group's name has 16 digits of base 16")
        if self.paused not in {"", "yes"}:
            raise FilterError("paused is `yes`, or left out")
        return Wanted(
            kind=self.kind or None,
            state="dead" if self.group else self.state or None,
            queue=self.queue or None,
            key=self.key or None,
            error=self.error or None,
            since=_time(self.since, "since", now),
            until=_time(self.until, "until", now),
            attempts=_number(self.attempts, "attempts"),
            parent=_id(self.parent, "parent"),
            batch=_id(self.batch, "batch"),
            group=self.group or None,
            paused=True if self.paused else None,
            contains=self._contains(),
        )

    def _contains(self) -> dict[str, Any] | None:
        if not self.field:
            return None
        job = registry().get(self.kind)
        if job is None:
            raise FilterError("a field of the payload is looked for within one kind: choose it")
        known = public_fields(job.payload)
        if self.field not in known:
            names = ", ".join(sorted(known)) or "none"
            raise FilterError(f"the fields of {self.kind} that are marked public: {names}")
        adapter: TypeAdapter[Any] = TypeAdapter(known[self.field].rebuild_annotation())
        try:
            value = adapter.dump_python(adapter.validate_strings(self.value), mode="json")
        except ValidationError:
            raise FilterError(f"that cannot be a value of {self.field}") from None
        return {self.field: value}


def read_position(text: str) -> Position | None:
    """Return where a page begins, as `write_position` wrote it.

    Raises:
        FilterError: it did not.
    """
    if not text:
        return None
    at, _, job_id = text.partition("_")
    try:
        position = datetime.fromisoformat(at), UUID(job_id)
    except ValueError:
        raise FilterError("this page does not begin anywhere: go back to the first") from None
    if position[0].tzinfo is None:
        raise FilterError("this page begins at a time without a zone: go back to the first")
    return position


def write_position(line: JobLine) -> str:
    """Return where a page that ends with a line goes on."""
    at, job_id = line.position
    return f"{at.isoformat()}_{job_id}"


def _time(word: str, name: str, now: datetime) -> datetime | None:
    if not word:
        return None
    ago = re.fullmatch(r"([0-9]{1,9})([smhd])", word)
    if ago is not None:
        span = timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return now - min(span, AGO_MAX)
    try:
        at = datetime.fromisoformat(word)
    except ValueError:
        raise FilterError(f"{name} is 30m, 2h, 7d, or a time like 2026-01-31T09:00") from None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    if not 1970 <= at.year < 3000:  # noqa: PLR2004 - years that jobs are of
        raise FilterError(f"{name} is in a year from 1970 to 2999")
    return at


def _number(word: str, name: str) -> int | None:
    if not word:
        return None
    if not (word.isascii() and word.isdigit()) or int(word[:6]) > _SMALLINT_MAX:
        raise FilterError(f"{name} is a number")
    return int(word)


def _id(word: str, name: str) -> UUID | None:
    try:
        return UUID(word) if word else None
    except ValueError:
        raise FilterError(f"{name} is a job's id") from None
