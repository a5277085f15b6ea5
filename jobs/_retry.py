"""How a kind of job is tried again, and what follows where it is not."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol

ATTEMPTS_MAX: Final = 5
BASE: Final = timedelta(seconds=2)
CAP: Final = timedelta(minutes=10)

ExceptionTypes = tuple[type[BaseException], ...]


class Failure(Protocol):
    """The last failure of a job that is dead, as its row keeps it: no values of the payload."""

    @property
    def error(self) -> str:
        """The name of the exception; `WorkerDied` where its processes died."""
        ...

    @property
    def message(self) -> str:
        """What it said."""
        ...

    @property
    def sqlstate(self) -> str | None:
        """PostgreSQL's code, where it came from there."""
        ...


@dataclass(frozen=True, slots=True)
class Retry:
    """How often a job may fail, how long it waits in between, and which failures are others.

    Only failures of the job's own are asked about: a lock, a lost server or a missing grant is put
    back whatever stands here, and spends no attempt.

    Raises:
        ValueError: it cannot be meant.
        TypeError: what is named is no exception.
    """

    attempts_max: int = ATTEMPTS_MAX
    base: timedelta = BASE
    """The wait after the first spent attempt, at most: part of it is jitter. Each further attempt
    doubles it."""
    cap: timedelta = CAP
    """The wait after any number of attempts, at most."""
    final: ExceptionTypes = ()
    """After one of these the job is dead at once: no other try would end otherwise."""
    uncounted: ExceptionTypes = ()
    """These are not the job's fault: it waits, longer each time, and spends no attempt; after 50
    in a row each spends one."""

    def __post_init__(self) -> None:
        """Check that a job can live by it."""
        if self.attempts_max < 1:
            raise ValueError("attempts_max is at least 1: the first try is an attempt")
        if self.base <= timedelta() or self.cap < self.base:
            raise ValueError("base is longer than nothing, and cap is not shorter than base")
        for named in (*self.final, *self.uncounted):
            if not issubclass(named, BaseException):
                raise TypeError(f"{named!r} is no exception")
