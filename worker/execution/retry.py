"""What to do with a job after an exception: again at once, later, an attempt spent, or dead.

Pure: no I/O, no clock; the random numbers are passed in. What the drivers raise is classified in
`db.errors`; this is the policy on top of it. Every cause has its own count in the job's row, and
every count has a bound:

| cause | counted in | until | then |
|---|---|---|---|
| a failure of its own | `attempts` | the policy's `Retry.attempts_max` | dead |
| locks, conflicts, slow statements | `conflicts` | `CONFLICTS_MAX` | an attempt each |
| a grant, a table, room on the disk | `blocked_since` | `BLOCKED_MAX` | an attempt each |
| no worker knows its kind or payload | `blocked_since` | `BLOCKED_MAX` | dead |
| its process died | `crashes` | `CRASHES_MAX` | dead |
| the server is seen to be away | nothing | it answers again | - |
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

from db import errors
from db.errors import Diagnosis, Trouble
from db.execution import Standing
from db.transaction import TransactionEndedError
from worker.execution.commit import UnitTimeoutError

if TYPE_CHECKING:
    from jobs import Retry


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

IN_PLACE_S: Final = 5.0
"""A try that begins later than this after the first goes through the queue instead."""

CONFLICTS_MAX: Final = 50
CRASHES_MAX: Final = 3
BLOCKED_MAX: Final = timedelta(days=1)
NEWER_WORKER: Final = "newer_worker"

OUTAGE_DELAY_S: Final = (1.0, 5.0)
CONFLICT_DELAY_BASE_S: Final = 1.0
CONFLICT_DELAY_GROWTH: Final = 1.25
CONFLICT_DELAY_MAX_S: Final = 30.0
RESOURCES_DELAY_S: Final = (30.0, 60.0)
"""A full disk or too little memory is not mended within seconds, and every try makes it worse."""
RESOURCES_CLASSES: Final = ("53", "58")
BLOCKED_DELAY_PART: Final = 0.1
"""A blocked job waits this part of the time it has been blocked, within the two bounds."""
BLOCKED_DELAY_MIN_S: Final = 1.0
BLOCKED_DELAY_MAX_S: Final = 30.0


class Cause(StrEnum):
    """What a trouble counts as, once it is known whether the server is there."""

    OWN = "own"
    CONFLICT = "conflict"
    ENVIRONMENT = "environment"
    NEWER_WORKER = "newer_worker"
    OUTAGE = "outage"
    HOPELESS = "hopeless"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a job whose run is over: its ledger, and when it runs again."""

    action: Literal["put_back", "blocked", "spend_attempt", "mark_dead"]
    standing: Standing
    delay: timedelta = timedelta()
    """Until the next try, unless the job is dead."""

    @property
    def is_dead(self) -> bool:
        """Whether the job is final."""
        return self.action == "mark_dead"


def diagnose(error: BaseException) -> Diagnosis:
    """Return what kind of trouble an exception of a job is, its own deadline included."""
    if isinstance(error, JobTimeoutError | UnitTimeoutError):
        return Diagnosis(Trouble.JOB_TIMEOUT)
    if isinstance(error, TransactionEndedError):
        # Its effects may be kept already: running it again could double them.
        return Diagnosis(Trouble.ALARM)
    return errors.diagnose(error)


def wait_in_place(
    diagnosis: Diagnosis, *, tries: int, elapsed_s: float, jitter: float
) -> float | None:
    """Return after how many seconds to try again at once; None: not any more.

    Args:
        diagnosis: what went wrong.
        tries: those of this delivery, at least 1.
        elapsed_s: since the first of them began.
        jitter: uniform in [0, 1), spreads the waits.
    """
    rule = IN_PLACE.get(diagnosis.trouble)
    if rule is None or tries > rule.tries_max or elapsed_s > IN_PLACE_S:
        return None
    return full_jitter(rule.base_s, rule.cap_s, tries, jitter)


MAY_BE_THE_SERVERS: Final = frozenset({Trouble.CONNECTION, Trouble.JOB_TIMEOUT})
"""After these, look whether the server answers anybody: else the job is not to blame."""


def cause_of(diagnosis: Diagnosis, *, server_is_away: bool, handler_began: bool) -> Cause:
    """Return what a trouble counts as.

    Args:
        diagnosis: what went wrong.
        server_is_away: whether a fresh look found nobody who serves.
        handler_began: whether the job had its transaction. If not, and the server is there, it
            was a restart just survived or a pool without a free connection: not the job's doing.
    """
    match diagnosis.trouble:
        case Trouble.CONNECTION | Trouble.JOB_TIMEOUT if server_is_away:
            return Cause.OUTAGE
        case Trouble.CONNECTION if not handler_began:
            return Cause.CONFLICT
        case Trouble.CONFLICT | Trouble.LOCK_TIMEOUT | Trouble.QUERY_CANCELLED | Trouble.STALE_PLAN:
            return Cause.CONFLICT
        case Trouble.ENVIRONMENT | Trouble.SERVER_RESOURCES:
            return Cause.ENVIRONMENT
        case Trouble.ALARM:
            return Cause.HOPELESS
        case _:
            return Cause.OWN


def named_cause(error: BaseException, retry: "Retry") -> Cause:
    """Return what a failure of the job's own counts as, by the exceptions that its policy names."""
    kind = type(error)
    if issubclass(kind, retry.final):
        return Cause.HOPELESS
    return Cause.CONFLICT if issubclass(kind, retry.uncounted) else Cause.OWN


def decide(
    cause: Cause, sqlstate: str | None, standing: Standing, retry: "Retry", *, jitter: float
) -> Decision:
    """Return what becomes of a job after its last try in place.

    Args:
        cause: what the trouble counts as.
        sqlstate: PostgreSQL's code for it, if it has one.
        standing: the ledger in the job's row.
        retry: the job's policy.
        jitter: uniform in [0, 1), spreads the waits.
    """
    match cause:
        case Cause.OUTAGE:
            return Decision("put_back", standing, _between(OUTAGE_DELAY_S, jitter))
        case Cause.CONFLICT if standing.conflicts < CONFLICTS_MAX:
            counted = replace(standing, conflicts=standing.conflicts + 1)
            return Decision("put_back", counted, _conflict_delay(standing.conflicts, jitter))
        case Cause.ENVIRONMENT | Cause.NEWER_WORKER if not _is_blocked_too_long(standing):
            by = NEWER_WORKER if cause is Cause.NEWER_WORKER else f"environment:{sqlstate}"
            blocked = replace(standing, blocked_by=by)
            return Decision("blocked", blocked, _blocked_delay(sqlstate, standing, jitter))
        case Cause.HOPELESS | Cause.NEWER_WORKER:
            return Decision("mark_dead", _spent(standing))
        case Cause.OWN:
            # It came as far as its own failure: nothing holds it up.
            standing = Standing(attempts=standing.attempts)
    spent = _spent(standing)
    if spent.attempts >= retry.attempts_max:
        return Decision("mark_dead", spent)
    return Decision("spend_attempt", spent, backoff(retry, spent.attempts, jitter))


def _spent(standing: Standing) -> Standing:
    return replace(standing, attempts=standing.attempts + 1)


def _is_blocked_too_long(standing: Standing) -> bool:
    return standing.blocked_s > BLOCKED_MAX.total_seconds()


def _between(bounds_s: tuple[float, float], jitter: float) -> timedelta:
    shortest_s, longest_s = bounds_s
    return timedelta(seconds=shortest_s + jitter * (longest_s - shortest_s))


def _conflict_delay(conflicts: int, jitter: float) -> timedelta:
    """Return a wait that grows with the times before, half fixed and half jitter."""
    full_s = min(CONFLICT_DELAY_MAX_S, CONFLICT_DELAY_BASE_S * CONFLICT_DELAY_GROWTH**conflicts)
    return timedelta(seconds=full_s / 2 + jitter * full_s / 2)


def _blocked_delay(sqlstate: str | None, standing: Standing, jitter: float) -> timedelta:
    if sqlstate is not None and sqlstate.startswith(RESOURCES_CLASSES):
        return _between(RESOURCES_DELAY_S, jitter)
    grown_s = BLOCKED_DELAY_PART * standing.blocked_s * (1 + jitter / 4)
    return timedelta(seconds=min(BLOCKED_DELAY_MAX_S, max(BLOCKED_DELAY_MIN_S, grown_s)))


def full_jitter(base_s: float, cap_s: float, attempt: int, jitter: float) -> float:
    """Return a wait in [0, min(cap, base·2^(attempt-1))), after AWS's "full jitter"."""
    return jitter * min(cap_s, base_s * 2.0 ** min(attempt - 1, 32))


def backoff(retry: "Retry", attempts: int, jitter: float) -> timedelta:
    """Return the wait after the n-th spent attempt: exponential, half fixed and half jitter."""
    full = min(
        retry.cap.total_seconds(),
        retry.base.total_seconds() * 2.0 ** min(attempts - 1, 32),
    )
    return timedelta(seconds=full / 2 + jitter * full / 2)
