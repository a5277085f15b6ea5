"""Test your own jobs: run a handler as a worker would, with all that it touches under control.

    async def test_a_paid_order_is_confirmed():
        run = await perform(PayOrder(order=7), store=FakeStore())
        assert run.answer == Paid(order=7)
        assert run.enqueued(SendConfirmation) == [SendConfirmation(order=7)]

No server is needed. On real ones, the fixtures of `worker.dev.pytest_plugin` run jobs as a worker
does, in transactions that count.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, NoReturn, TypeVar, cast
from uuid import UUID, uuid4

from pydantic_core import from_json, to_json

from ._context import Context, FollowUp, NewBatch
from ._decisions import Cancel, Continue, Rejected, Snooze
from ._payload import Payload, Result, payload_json
from ._registry import registry

__all__ = ["SLICES_MAX", "EndlessJobError", "Progress", "Run", "perform", "perform_to_end"]

SLICES_MAX: Final = 10_000
"""Slices that `perform_to_end` runs of one job."""

P = TypeVar("P", bound=Payload)


class EndlessJobError(AssertionError):
    """A job still answers `Continue` after `SLICES_MAX` slices."""


class Progress(NamedTuple):
    """One call of `ctx.progress`."""

    done: int
    total: int | None
    note: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of a handler came to."""

    answer: Result | Rejected | Snooze | Cancel | Continue | None
    """As its callers would get it: a result has been JSON in between."""
    follow_ups: Sequence[FollowUp]
    """What it enqueued; empty where the answer keeps nothing that the handler wrote."""
    batches: Sequence[NewBatch] = ()
    """What batches it opened; none where the answer keeps nothing that the handler wrote."""
    progress: Sequence[Progress] = field(default_factory=list)

    def enqueued(self, payload: type[P]) -> list[P]:
        """Return the payloads of one type that it enqueued, in order."""
        return [
            payload.model_validate_json(one.request.payload_json)
            for one in self.follow_ups
            if one.request.kind == payload.kind
        ]


async def perform(  # noqa: PLR0913 - what a handler finds in its context, by name
    payload: Payload,
    *,
    store: object = None,
    services: object = None,
    cursor: object = None,
    job_id: UUID | None = None,
    try_number: int = 1,
    enqueued_at: datetime | None = None,
) -> Run:
    """Run the handler of a payload once.

    The payload and the result become JSON and are read again, as on their way through a queue: what
    does not survive that fails here.

    Args:
        payload: of a kind that is registered.
        store: what the handler finds as `ctx.store`; any object with what it uses.
        services: the same for `ctx.services`.
        cursor: where the slice begins, for a handler that answers `Continue`.
        job_id: the job's; give one where the handler writes it down.
        try_number: which delivery this is.
        enqueued_at: when the job was accepted; now, if it does not matter.

    Raises:
        Exception: whatever the handler raises.
        TypeError: the answer is neither a result nor a decision.
    """
    job = registry()[payload.kind]
    shown: list[Progress] = []
    ctx = Context(
        job_id=job_id or uuid4(),
        try_number=try_number,
        enqueued_at=enqueued_at or datetime.now(UTC),
        store=cast("Any", store if store is not None else _Missing("store")),
        services=cast("Any", services if services is not None else _Missing("services")),
        progress=lambda done, total=None, note="": shown.append(Progress(done, total, note)),
        cursor=cursor,
        kinds=registry(),
    )
    received = job.payload.model_validate_json(payload_json(payload))
    answer = _as_callers_get_it(await job.handler(ctx, received))
    keeps = answer is None or isinstance(answer, Result | Continue)
    if not keeps:
        return Run(answer, (), (), shown)
    return Run(answer, tuple(ctx.follow_ups), tuple(ctx.batches), shown)


async def perform_to_end(payload: Payload, **given: Any) -> list[Run]:  # noqa: ANN401 - see `perform`
    """Run the handler slice by slice until it answers something else than `Continue`.

    Args:
        payload: see `perform`.
        given: see `perform`.

    Returns:
        Every slice's run, the last one's answer being the job's end.

    Raises:
        EndlessJobError: it is not at its end after `SLICES_MAX` slices.
    """
    given.setdefault("job_id", uuid4())
    runs: list[Run] = []
    for _ in range(SLICES_MAX):
        runs.append(run := await perform(payload, **given))
        if not isinstance(run.answer, Continue):
            return runs
        given["cursor"] = run.answer.cursor
    raise EndlessJobError(f"{payload.kind} is not at its end after {SLICES_MAX:,} slices")


def _as_callers_get_it(answer: object) -> Result | Rejected | Snooze | Cancel | Continue | None:
    match answer:
        case None | Rejected() | Snooze() | Cancel():
            return answer
        case Continue(cursor, delay):
            return Continue(from_json(to_json(cursor)), delay)
        case Result():
            return type(answer).model_validate_json(answer.model_dump_json())
    raise TypeError(f"a handler answers a Result or a decision, not {type(answer).__name__}")


class _Missing:
    """Stands for what a test did not give, and says so when the handler uses it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> NoReturn:
        raise AssertionError(
            f"the handler uses ctx.{self._name}.{attribute}: give perform(…, {self._name}=…) "
            "an object that has it"
        )
