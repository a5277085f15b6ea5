"""Claiming: due jobs, with everything needed to run them, in one round trip."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .claims import Claim
from .scripts import CLAIM, DISOWN

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from arq.connections import ArqRedis

    from .claims import Claims

PASSED_MAX: Final = 5_000
"""Jobs of stock arq workers that one claim steps over; a mixed fleet may not run more at once."""
DISOWN_SCAN_MAX: Final = 10_000
"""Leased jobs that one `disown` looks at."""

_FIELDS_PER_JOB: Final = 5
_HEAD: Final = 3


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs that one claim returned, and what the queue still holds."""

    claims: list[Claim] = field(default_factory=list)
    next_due_in_s: float | None = None
    """When the next deferred job is due; unknown while more is due now."""
    more: bool = False
    """Whether more was due than was wanted."""


class Claimer:
    """Claims jobs of one queue for one worker."""

    def __init__(self, claims: "Claims", bell_key: str) -> None:
        self._claims = claims
        self._keys = (claims.queue_name, bell_key)

    async def claim(
        self, redis: "ArqRedis", want: int, *, aborts: bool, only: "Sequence[bytes]" = ()
    ) -> Batch:
        """Claim up to `want` due jobs, or those of `only` that are due and free."""
        claims = self._claims
        args = (claims.worker_id, claims.lease_ms, want, int(aborts), PASSED_MAX, *only)
        return _parse(await CLAIM(redis, self._keys, args))

    async def disown(self, redis: "ArqRedis") -> int:
        """Give back the jobs that Redis leased to this worker in an answer that was lost."""
        claims = self._claims
        args = (claims.worker_id, claims.lease_ms, DISOWN_SCAN_MAX, *claims.held)
        return int(await DISOWN(redis, self._keys, args))


def _parse(reply: "list[Any]") -> Batch:
    now_ms, next_due, more = int(reply[0]), int(float(reply[1])), bool(reply[2])
    return Batch(
        claims=list(_claims(reply)),
        next_due_in_s=(next_due - now_ms) / 1000 if next_due else None,
        more=more,
    )


def _claims(reply: "list[Any]") -> "Iterator[Claim]":
    for i in range(_HEAD, len(reply), _FIELDS_PER_JOB):
        job_id, body, tries, score, aborted_at = reply[i : i + _FIELDS_PER_JOB]
        yield Claim(
            job_id.decode(),
            body,
            tries,
            int(float(score)),
            None if aborted_at is None else int(float(aborted_at)),
        )
