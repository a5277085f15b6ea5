"""A job: its payload (the contract with callers), its policy, and its handler."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

from ._schedule import Schedule

if TYPE_CHECKING:
    from db.store import Store

    from ._services import Services


class Payload(BaseModel):
    """What a caller sends: frozen, closed, strict, JSON on the wire.

    Closed means that a field an older worker does not know is refused: deploy workers first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    kind: ClassVar[str]
    """The name on the wire: stable for ever, never a Python path."""

    @classmethod
    def from_wire(cls, raw: object) -> Self:
        """Read what JSON brought, by JSON's own rules (a string for a UUID, never for a number).

        Raises:
            pydantic.ValidationError: it does not fit; the message never repeats the input.
        """
        return cls.model_validate_json(to_json(raw))

    def to_wire(self) -> dict[str, Any]:
        """Return the payload as JSON values.

        What equals its default is left out: then a new optional field changes no payload that
        does not use it, and a key sent again after a deploy still means the same job.
        """
        return self.model_dump(mode="json", exclude_defaults=True)

    def conflict_keys(self) -> tuple[str, ...]:
        """Name what this job contends for; jobs with a key in common run one after another."""
        return ()

    @classmethod
    def is_personal(cls) -> bool:
        """Tell whether any field is personal: then only the job's id goes through the queue."""
        return _has_personal(cls)


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


class Result(BaseModel):
    """What a handler answers when the work is done; stored with the job and sent to callers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ShowProgress(Protocol):
    """Shows the job's callers how far it is. Call it from the event loop, as often as you like."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that `done` of `total` is done, in the job's own unit; never waits or raises."""


def show_nobody(done: int, total: int | None = None, note: str = "") -> None:
    """Show progress to nobody: there is no Redis, or no caller."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may touch: its own transaction's store, and facts about this try."""

    job_id: UUID
    try_number: int
    """Counts deliveries from 1, whatever became of the earlier ones."""
    enqueued_at: datetime
    store: "Store"
    services: "Services"
    """What `_services.py` opened when the worker started."""
    progress: ShowProgress = show_nobody


Handler = Callable[[Context, Any], Awaitable[object]]

TIMEOUT_DEFAULT = timedelta(seconds=10)
ATTEMPTS_MAX_DEFAULT = 5
BACKOFF_BASE_DEFAULT = timedelta(seconds=2)
BACKOFF_CAP_DEFAULT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a job is run and retried."""

    timeout: timedelta = TIMEOUT_DEFAULT
    attempts_max: int = ATTEMPTS_MAX_DEFAULT
    backoff_base: timedelta = BACKOFF_BASE_DEFAULT
    backoff_cap: timedelta = BACKOFF_CAP_DEFAULT
    snapshot: bool = False
    """Read in one REPEATABLE READ READ ONLY transaction; the outcome is recorded in a second one.
    The handler's effect must then be idempotent by the job's id."""
    kept_for: timedelta | None = None
    """How long the record keeps a finished job; None for ever, and so its id and key are known."""


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of work: contract, policy and handler."""

    payload: type[Payload]
    handler: Handler
    policy: Policy = field(default_factory=Policy)
    schedules: tuple[Schedule, ...] = ()

    @property
    def kind(self) -> str:
        """The name on the wire."""
        return self.payload.kind

    @property
    def description(self) -> str:
        """What it does, in a sentence: the handler's own docstring."""
        return (self.handler.__doc__ or "").strip()

    def result_type(self) -> type[Result] | None:
        """Return the model of a completed job's result, read from the handler's annotation."""
        answer = get_type_hints(self.handler)["return"]
        options = getattr(answer, "__args__", (answer,))
        return next((o for o in options if isinstance(o, type) and issubclass(o, Result)), None)


def job(  # noqa: PLR0913 - a job's whole policy, by name
    payload: type[Payload],
    *,
    timeout: timedelta = TIMEOUT_DEFAULT,
    attempts_max: int = ATTEMPTS_MAX_DEFAULT,
    snapshot: bool = False,
    kept_for: timedelta | None = None,
    schedules: Sequence[Schedule] = (),
) -> Callable[[Handler], Job]:
    """Make a handler a job: `@job(TransferFunds, timeout=timedelta(seconds=10))`."""

    def decorate(handler: Handler) -> Job:
        policy = Policy(
            timeout=timeout, attempts_max=attempts_max, snapshot=snapshot, kept_for=kept_for
        )
        return Job(payload, handler, policy, tuple(schedules))

    return decorate
