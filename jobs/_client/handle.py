"""A job as its caller sees it: status, result, progress, cancel."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from .._decisions import Cancel, Rejected
from .._errors import JobDeadError, KeyConflictError
from .._job import Result
from .._registry import registry

if TYPE_CHECKING:
    from uuid import UUID

    from .client import Client

Status = Literal["scheduled", "queued", "running", "completed", "rejected", "dead", "cancelled"]
"""Where a job is; the last four are final."""

Answer: TypeAlias = Result | Rejected | Cancel | dict[str, Any] | None
"""A job's end: its result, a business "no", or that it was cancelled. A dead job raises."""

RESULT_TIMEOUT_S: Final = 30.0
CANCEL_TIMEOUT_S: Final = 5.0


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


@dataclass(frozen=True, slots=True)
class Handle:
    """One job. It holds no connection; keep it, pass it on, or make it again from the id."""

    id: "UUID"
    """The job's id in the record, and the idempotency key of its effects."""
    redis_id: str
    """Its id in Redis, where arq's own clients find it."""
    fresh: bool | None = None
    """Whether this call made the job. False: it was there already, with the same payload."""
    recorded: bool = False
    """Whether it went through the database, so that Redis may not know of it yet."""
    _client: "Client" = field(repr=False, compare=False, kw_only=True)

    @property
    def duplicate(self) -> bool:
        """Whether the same key and payload had been accepted before."""
        return self.fresh is False

    async def status(self) -> Status:
        """Return where the job is now.

        Raises:
            JobNotFoundError: neither the record nor Redis, as far as the client has them, know it.
        """
        return await self._client.status_of(self)

    async def result(self, timeout: float = RESULT_TIMEOUT_S) -> Answer:  # noqa: ASYNC109 - arq's name for it
        """Wait until the job is done, woken by Redis where it can be, and return its answer.

        Args:
            timeout: seconds.

        Returns:
            The kind's Result (None if it has none), a `Rejected`, or a `Cancel`.

        Raises:
            ResultTimeoutError: not done in time; the job goes on.
            JobDeadError: it failed for good.
            JobNotFoundError: nobody knows the job.
        """
        return answer_of(self.id, await self._client.end_of(self, timeout))

    async def progress(self) -> Progress | None:
        """Return what the job last said of its progress; None if it said nothing."""
        return await self._client.progress_of(self)

    async def cancel(
        self,
        reason: str = "cancelled by its caller",
        timeout: float = CANCEL_TIMEOUT_S,  # noqa: ASYNC109 - arq's name for it
    ) -> bool:
        """Cancel the job unless it has taken effect; return whether it will never take effect.

        With `sessions` the record decides, at once. With Redis alone it is arq's abort: a request
        that the worker answers within `timeout` seconds, or not; then this returns False.
        """
        return await self._client.cancel(self, reason, timeout)


def answer_of(job_id: "UUID", end: End) -> Answer:
    """Return a job's end in the words of `jobs`.

    Raises:
        JobDeadError, KeyConflictError: the ends that are nobody's answer.
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
    return model.model_validate(stored)


def end_in_redis(found: dict[str, Any]) -> End:
    """Read what arq stored as a job's result."""
    kind, value = str(found.get("f")), found.get("r")
    if found.get("s"):
        if isinstance(value, dict) and value.keys() == {"rejected"}:
            return End("rejected", kind, value["rejected"])
        return End("completed", kind, value)
    failure = value if isinstance(value, dict) else {}
    match failure.get("error"):
        case "JobCancelledError":
            return End("cancelled", kind, {"reason": failure.get("message")})
        case "CancelledError":
            return End("cancelled", kind, {"reason": "aborted"})
        case "JobConflictError":
            return End("conflict", kind, None)
        case _:
            return End("dead", kind, None)
