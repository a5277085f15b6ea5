"""What to do with a job after an exception: again at once, later, an attempt spent, or dead.

Pure: no I/O, no clock; the random numbers are passed in. What the drivers raise is classified in
`db.errors`; this is the policy on top of it.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from db import errors
from db.errors import Diagnosis, Trouble

if TYPE_CHECKING:
    from jobs import Policy


class JobTimeoutError(Exception):
    """The job ran longer than its policy allows."""


@dataclass(frozen=True, slots=True)
class InPlaceRule:
    """How often, and after what wait, a trouble is tried again at once, in a new transaction."""

    tries_max: int
    base_s: float
    cap_s: float


# Full jitter, a few tries within about a second; a lock held for long gets fewer.
IN_PLACE: Final = {
    Trouble.CONFLICT: InPlaceRule(tries_max=6, base_s=0.010, cap_s=0.250),
    Trouble.LOCK_TIMEOUT: InPlaceRule(tries_max=2, base_s=0.050, cap_s=0.250),
    Trouble.QUERY_CANCELLED: InPlaceRule(tries_max=1, base_s=0.050, cap_s=0.250),
    Trouble.CONNECTION: InPlaceRule(tries_max=3, base_s=0.100, cap_s=1.0),
    Trouble.TOO_SLOW: InPlaceRule(tries_max=1, base_s=0.100, cap_s=0.500),
    Trouble.STALE_PLAN: InPlaceRule(tries_max=2, base_s=0.0, cap_s=0.0),
    Trouble.UNIQUE: InPlaceRule(tries_max=1, base_s=0.010, cap_s=0.050),
}

# What is not the job's fault goes back to the queue for this long, and spends no attempt.
REQUEUE_S: Final = {
    Trouble.CONFLICT: (0.5, 5.0),
    Trouble.LOCK_TIMEOUT: (0.5, 5.0),
    Trouble.QUERY_CANCELLED: (1.0, 10.0),
    Trouble.CONNECTION: (1.0, 5.0),
    Trouble.SERVER_RESOURCES: (30.0, 60.0),
    Trouble.TOO_SLOW: (1.0, 10.0),
    Trouble.STALE_PLAN: (0.5, 5.0),
}

# Past this many deliveries even a lock conflict spends attempts: no job goes round forever.
# A lost connection never does: it could not be recorded, and says nothing about the job.
FREE_DELIVERIES_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class RunAgain:
    """At once, in a new session and transaction, after a short wait."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class PutBack:
    """To the queue, after a longer wait, spending no attempt."""

    delay_s: float


@dataclass(frozen=True, slots=True)
class SpendAttempt:
    """The job's own failure: an attempt is used up, and the count in its row decides the rest."""


@dataclass(frozen=True, slots=True)
class MarkDead:
    """Dead at once: trying again cannot help, and an operator must look."""


Decision = RunAgain | PutBack | SpendAttempt | MarkDead


def diagnose(error: BaseException) -> Diagnosis:
    """Return what kind of trouble an exception of a job is, its own deadline included."""
    if isinstance(error, JobTimeoutError):
        return Diagnosis(Trouble.JOB_TIMEOUT)
    return errors.diagnose(error)


def decide(
    diagnosis: Diagnosis, *, tries_in_place: int, try_number: int, jitter: float
) -> Decision:
    """Return what to do after one failed try.

    Args:
        diagnosis: what went wrong.
        tries_in_place: tries already made during this delivery, at least 1.
        try_number: deliveries so far, at least 1.
        jitter: uniform in [0, 1), spreads the waits.
    """
    trouble = diagnosis.trouble
    if trouble is Trouble.ALARM:
        return MarkDead()
    rule = IN_PLACE.get(trouble)
    if rule is not None and tries_in_place <= rule.tries_max:
        return RunAgain(full_jitter(rule.base_s, rule.cap_s, tries_in_place, jitter))
    if trouble not in REQUEUE_S:
        return SpendAttempt()
    if trouble is not Trouble.CONNECTION and try_number > FREE_DELIVERIES_MAX:
        return SpendAttempt()
    shortest, longest = REQUEUE_S[trouble]
    return PutBack(shortest + jitter * (longest - shortest))


def full_jitter(base_s: float, cap_s: float, attempt: int, jitter: float) -> float:
    """Return a wait in [0, min(cap, base·2^(attempt-1))), after AWS's "full jitter"."""
    return jitter * min(cap_s, base_s * 2.0 ** min(attempt - 1, 32))


def backoff(policy: "Policy", attempts: int, jitter: float) -> timedelta:
    """Return the wait after the n-th spent attempt: exponential, half fixed and half jitter."""
    full = min(
        policy.backoff_cap.total_seconds(),
        policy.backoff_base.total_seconds() * 2.0 ** min(attempts - 1, 32),
    )
    return timedelta(seconds=full / 2 + jitter * full / 2)
