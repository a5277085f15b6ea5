"""What becomes of a job, as its caller sees it: status, progress, and the end with its answer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic_core import from_json, to_json

from .._decisions import Cancel, Rejected
from .._errors import JobDeadError, KeyConflictError
from .._payload import Result
from .._registry import registry
from .._wire import read_answer

if TYPE_CHECKING:
    from uuid import UUID

Status = Literal["scheduled", "queued", "running", "completed", "rejected", "dead", "cancelled"]
"""Where a job is; the last four are final."""

Answer: TypeAlias = Result | Rejected | Cancel | dict[str, Any] | None
"""A job's end: its result, a business "no", or that it was cancelled. A dead job raises."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job says it is."""

    done: int
    total: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class End:
    """A final state with what is stored beside it."""

    state: Literal["completed", "rejected", "dead", "cancelled", "conflict"]
    kind: str
    stored: Any

    @property
    def status(self) -> Status:
        """The state as a status: to its sender, a job in conflict with another one is dead."""
        return "dead" if self.state == "conflict" else self.state


def end_in_redis(stored: "bytes | str") -> End | None:
    """Read what a worker stored as a job's result.

    Returns:
        None if that is no end for good: no JSON, as in arq's pickles, or a failure in arq's own
        words (an abort or a time limit of its stock worker, say), which no row confirms.
    """
    try:
        result = from_json(stored)
    except ValueError:
        return None
    return _end_of(result) if isinstance(result, dict) else None


def _end_of(result: dict[str, Any]) -> End | None:
    kind, value = str(result.get("f")), result.get("r")
    if result.get("s"):
        is_rejection, answer = read_answer(value)
        return End("rejected" if is_rejection else "completed", kind, answer)
    failure = value if isinstance(value, dict) else {}
    match failure.get("error"):
        case "JobCancelledError":
            return End("cancelled", kind, {"reason": failure.get("message")})
        case "JobConflictError":
            return End("conflict", kind, None)
        case "JobDeadError":
            return End("dead", kind, None)
    return None


def answer_of(job_id: "UUID", end: End) -> Answer:
    """Return a job's end as `Handle.result` returns it.

    Raises:
        JobDeadError: the job failed for good.
        KeyConflictError: another job has the id.
    """
    match end.state:
        case "completed":
            return _result(end.kind, end.stored)
        case "rejected":
            return Rejected(end.stored["code"], end.stored.get("message", ""))
        case "cancelled":
            return Cancel(str((end.stored or {}).get("reason", "cancelled")))
        case "conflict":
            raise KeyConflictError(
                f"job {job_id} has another payload than the one sent with this id: "
                "use a new key for a new payload"
            )
        case "dead":
            raise JobDeadError(job_id)


def _result(kind: str, stored: Any) -> "Result | dict[str, Any] | None":  # noqa: ANN401 - JSON
    job = registry().get(kind)
    model = job.result_type() if job else None
    if model is None or stored is None:
        return stored  # type: ignore[no-any-return]
    # Read by JSON's own rules; a field that a newer worker added is left out.
    return model.model_validate_json(to_json(stored), extra="ignore")
