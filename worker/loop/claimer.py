"""Claiming: due jobs, with everything needed to run them, in one round trip."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from .claims import Claim
from .doorbell import BELL_SUFFIX
from .scripts import CLAIM, DISOWN, QUARANTINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arq.connections import ArqRedis

    from .claims import Claims

PASSED_MAX: Final = 5_000
"""Members that one claim steps over or sets aside: jobs of stock arq workers, suspects, garbage."""
DISOWN_SCAN_MAX: Final = 10_000
"""Leased jobs that one `disown` looks at."""
BODY_BYTES_MAX: Final = 64 * 1024
"""A larger body is not in the answer to a claim: its own job fetches it."""
BODIES_BYTES_MAX: Final = 256 * 1024
"""A claim ends once the bodies in its answer are larger together: a slow line must carry it."""
TIME_MAX_MS: Final = 2**53
"""Scores beyond are cut to it: `-inf` is a customary way to say "at once"."""

_FIELDS_PER_JOB: Final = 5
_HEAD: Final = 4


@dataclass(frozen=True, slots=True)
class Batch:
    """The jobs that one claim returned, and what the queue still holds."""

    claims: list[Claim] = field(default_factory=list)
    next_due_in_s: float | None = None
    """When the next deferred job is due; unknown while more is due now."""
    more: bool = False
    """Whether more was due than was wanted."""
    unreadable: list[tuple[bytes, int, str]] = field(default_factory=list)
    """What was claimed and cannot be a job: member, try, why."""


class Claimer:
    """Claims jobs of one queue for one worker."""

    def __init__(self, claims: "Claims", queue_name: str) -> None:
        self._claims = claims
        self._queue_name = queue_name
        self._keys = (queue_name, queue_name + BELL_SUFFIX)

    async def claim(
        self,
        redis: "ArqRedis",
        want: int,
        *,
        aborts: bool,
        suspects: bool = True,
        only: "Sequence[bytes]" = (),
    ) -> Batch:
        """Claim up to `want` due jobs, or those of `only` that are due and free.

        With `suspects`, the last of them may be one under which a process died (`Claim.crashes`).
        """
        claims = self._claims
        args = (
            *(claims.worker_id, claims.lease_ms, want, int(aborts), PASSED_MAX, int(suspects)),
            *(BODY_BYTES_MAX, BODIES_BYTES_MAX),
            *only,
        )
        return _parse(await CLAIM(redis, self._keys, args), self._queue_name)

    async def set_aside(self, redis: "ArqRedis", batch: Batch) -> None:
        """Move what cannot be a job from the queue into its quarantine."""
        args = [part for member in batch.unreadable for part in member]
        await QUARANTINE(redis, self._keys[:1], (self._claims.worker_id, *args))

    async def disown(self, redis: "ArqRedis") -> int:
        """Give back the jobs that Redis leased to this worker in an answer that was lost."""
        claims = self._claims
        args = (claims.worker_id, claims.lease_ms, DISOWN_SCAN_MAX, *claims.held)
        return int(await DISOWN(redis, self._keys, args))


def _parse(reply: "list[Any]", queue_name: str) -> Batch:
    now_ms, next_due_ms = int(reply[0]), _time_ms(reply[1])
    batch = Batch(
        next_due_in_s=(next_due_ms - now_ms) / 1000 if next_due_ms else None,
        more=bool(reply[2]),
    )
    claim = None
    for i in range(_HEAD, len(reply), _FIELDS_PER_JOB):
        member, body, tries, score, aborted_at = reply[i : i + _FIELDS_PER_JOB]
        try:
            job_id = member.decode()
        except ValueError as error:  # an id that is not UTF-8
            claim = None
            batch.unreadable.append((member, tries, f"the id: {error}"))
            continue
        try:
            score_ms = int(score)
        except ValueError:
            score_ms = _time_ms(score)
        claim = Claim(job_id, body, tries, score_ms, queue_name=queue_name)
        if type(body) is int:
            claim.body, claim.body_size = None, body
        if aborted_at is not None:
            claim.aborted_at_ms = float(aborted_at)
        batch.claims.append(claim)
    if claim is not None:
        claim.crashes = reply[3]
    return batch


def _time_ms(score: bytes | int) -> int:
    """Return a score as whole milliseconds; the infinite ones as the last and first of all times.

    >>> _time_ms(b"1700000000000"), _time_ms(b"-inf") == -TIME_MAX_MS
    (1700000000000, True)
    """
    try:
        return int(score)
    except ValueError:
        return int(min(max(float(score), -TIME_MAX_MS), TIME_MAX_MS))
