"""The jobs that do the deeds: one kind with little time, and one with enough."""

from datetime import timedelta
from typing import ClassVar, Final, Literal

from jobs import Context, Job, Payload, Retry, job
from worker.dev.poison.deeds import DEEDS

TIMEOUT: Final = timedelta(seconds=2)
PATIENT_TIMEOUT: Final = timedelta(seconds=40)
RETRY: Final = Retry(attempts_max=2, base=timedelta(seconds=0.2))
PATIENT_RETRY: Final = Retry(attempts_max=20, base=timedelta(seconds=0.2), cap=timedelta(seconds=2))
"""It completes, however often others take its connection away: each costs a slow job an attempt."""


class Poison(Payload):
    """Which deed, and a number that makes the job another one."""

    kind: ClassVar[str] = "chaos_poison"

    deed: Literal[tuple(DEEDS)]  # type: ignore[valid-type]  # as the table has them
    number: int = 0


class PoisonWithTime(Poison):
    """The same, for deeds that take their time."""

    kind: ClassVar[str] = "chaos_poison_with_time"


@job(Poison, timeout=TIMEOUT, retry=RETRY)
async def _do(ctx: Context, payload: Poison) -> None:
    """Misbehave."""
    await DEEDS[payload.deed].do(ctx)


@job(PoisonWithTime, timeout=PATIENT_TIMEOUT, retry=PATIENT_RETRY)
async def _do_slowly(ctx: Context, payload: PoisonWithTime) -> None:
    """Misbehave for longer."""
    await DEEDS[payload.deed].do(ctx)


JOBS: Final[dict[str, Job]] = {one.kind: one for one in (_do, _do_slowly)}


def poison(name: str, number: int) -> Poison:
    """Return the payload of a job that does a deed."""
    made = PoisonWithTime if DEEDS[name].has_time else Poison
    return made(deed=name, number=number)
