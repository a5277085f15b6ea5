"""A job: its payload (the contract with callers), its policy, and its handler."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints
from uuid import UUID

from pydantic import BaseModel, ConfigDict
from pydantic_core import to_json

if TYPE_CHECKING:
    from db.store import Store
    from worker.reports import Reports


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
        """Return the payload as JSON values."""
        return self.model_dump(mode="json")

    def conflict_keys(self) -> tuple[str, ...]:
        """Name what this job contends for; jobs with a key in common run one after another."""
        return ()

    @classmethod
    def is_personal(cls) -> bool:
        """Tell whether any field is personal: then only the job's id goes through the queue."""
        return any(
            isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("personal")
            for info in cls.model_fields.values()
        )


class Result(BaseModel):
    """What a handler answers when the work is done; stored with the job and sent to callers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler may touch: its own transaction's store, and facts about this try."""

    job_id: UUID
    try_number: int
    """Counts deliveries from 1, whatever became of the earlier ones."""
    enqueued_at: datetime
    store: "Store"
    reports: "Reports"


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


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of work: contract, policy and handler."""

    payload: type[Payload]
    handler: Handler
    policy: Policy = field(default_factory=Policy)

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


def job(
    payload: type[Payload],
    *,
    timeout: timedelta = TIMEOUT_DEFAULT,
    attempts_max: int = ATTEMPTS_MAX_DEFAULT,
    snapshot: bool = False,
) -> Callable[[Handler], Job]:
    """Make a handler a job: `@job(TransferFunds, timeout=timedelta(seconds=10))`."""

    def decorate(handler: Handler) -> Job:
        policy = Policy(timeout=timeout, attempts_max=attempts_max, snapshot=snapshot)
        return Job(payload=payload, handler=handler, policy=policy)

    return decorate
