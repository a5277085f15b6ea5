"""A job: its payload (the contract with callers), its policy, and its handler."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, get_type_hints

from ._context import Context
from ._limits import Rate
from ._payload import Payload, Result
from ._queue import DEFAULT, checked_queue
from ._retry import Failure, Retry
from ._schedule import Schedule

OnDead = Callable[[Any, Failure], Payload | None]
Handler = Callable[[Context, Any], Awaitable[object]]

DEFAULT_RETRY = Retry()
TIMEOUT_DEFAULT = timedelta(seconds=10)
UNIQUE_FOR_MAX = timedelta(days=3_650)


@dataclass(frozen=True, slots=True)
class Policy:
    """How a job is run and retried."""

    queue: str = DEFAULT
    """The queue that it waits in; each has slots of its own (TELLER_QUEUES)."""
    limit: int | None = None
    """How many run at a time, in all processes together; None: as many as there are slots."""
    rate: Rate | None = None
    """How many begin in a period, in all processes together; None: as many as there are."""
    per: Callable[[Any], object] | None = None
    """Given a payload, returns what `limit` and `rate` are counted for: `lambda p: p.customer`;
    None: for the whole kind."""
    timeout: timedelta = TIMEOUT_DEFAULT
    retry: Retry = DEFAULT_RETRY
    """How often it may fail, and which failures count as others."""
    on_dead: OnDead | None = None
    """Given the payload and the last failure of a job that is dead, returns a job that follows, or
    None; both are recorded together. Not called for a payload that does not fit the kind."""
    snapshot: bool = False
    """Read in one REPEATABLE READ READ ONLY transaction; the outcome is recorded in a second one.
    The handler's effect must then be idempotent by the job's id."""
    effects: Literal["inside", "outside"] = "inside"
    """Where its effects are. Outside: in other services, while no transaction and no connection is
    held; what the handler answers is recorded in a transaction afterwards. Such an effect must be
    idempotent by `ctx.idempotency_key`."""
    kept_for: timedelta | None = None
    """How long PostgreSQL keeps a finished job, and with it its id and key; None: forever."""
    expires_after: timedelta | None = None
    """How long after it could run first it is still wanted: one that has not begun by then ends as
    cancelled, with the reason `expired`. One that has begun does not expire."""
    unique_for: timedelta | None = None
    """A payload enqueued again without a key, within this time of its acceptance, is the same job.
    One that is dead or cancelled stands in nobody's way."""
    replace: bool = False
    """While a job waits, enqueueing it again (the same key, or without one the same payload) puts
    the newer payload and time in place of the older; at most `unique_for` after its acceptance it
    runs all the same. Once it is over, it is a new job."""

    def __post_init__(self) -> None:
        """Check the queue's name, and what belongs together."""
        checked_queue(self.queue)
        if self.limit is not None and self.limit < 1:
            raise ValueError("limit is 1 or more; to let none run, pause the kind")
        if self.per is not None and self.limit is None and self.rate is None:
            raise ValueError("per= needs limit= or rate=, which it divides")
        if self.effects not in {"inside", "outside"}:
            raise ValueError("effects is 'inside' or 'outside'")
        if self.snapshot and self.effects == "outside":
            raise ValueError("a snapshot reads the database, effects='outside' holds none: choose")
        if self.expires_after is not None and self.expires_after <= timedelta():
            raise ValueError("expires_after is longer than nothing")
        if self.unique_for is not None and not timedelta() < self.unique_for <= UNIQUE_FOR_MAX:
            raise ValueError(f"unique_for is more than 0, and {UNIQUE_FOR_MAX.days} days at most")
        if self.replace and self.unique_for is None:
            raise ValueError("replace=True needs unique_for, the longest that it may put a job off")


@dataclass(frozen=True, slots=True)
class Job:
    """One kind of work: contract, policy and handler."""

    payload: type[Payload]
    handler: Handler
    policy: Policy = field(default_factory=Policy)
    schedules: tuple[Schedule, ...] = ()

    def __call__(self, ctx: Context, payload: Payload) -> Awaitable[object]:
        """Call the handler alone, for a unit test: no transaction, no time limit, no retries."""
        return self.handler(ctx, payload)

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
    queue: str = DEFAULT,
    limit: int | None = None,
    rate: Rate | None = None,
    per: Callable[[Any], object] | None = None,
    timeout: timedelta = TIMEOUT_DEFAULT,
    retry: Retry = DEFAULT_RETRY,
    on_dead: OnDead | None = None,
    snapshot: bool = False,
    effects: Literal["inside", "outside"] = "inside",
    kept_for: timedelta | None = None,
    expires_after: timedelta | None = None,
    unique_for: timedelta | None = None,
    replace: bool = False,
    schedules: Sequence[Schedule] = (),
) -> Callable[[Handler], Job]:
    """Make a handler a job: `@job(TransferFunds, timeout=timedelta(seconds=10))`.

    `Policy` says what each argument means; `schedules` says when the job runs by itself.
    """
    policy = Policy(
        queue=queue,
        limit=limit,
        rate=rate,
        per=per,
        timeout=timeout,
        retry=retry,
        on_dead=on_dead,
        snapshot=snapshot,
        effects=effects,
        kept_for=kept_for,
        expires_after=expires_after,
        unique_for=unique_for,
        replace=replace,
    )

    def decorate(handler: Handler) -> Job:
        return Job(payload, handler, policy, tuple(schedules))

    return decorate
