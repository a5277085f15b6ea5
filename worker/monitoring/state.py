"""The state of a worker process and of its servers, and whether it is ready.

Written by the event loop, read by the health thread: single attributes, no locks.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

Mode = Literal["normal", "degraded"]

ANSWER_FRESH_S: Final = 15.0
"""How long an answer of PostgreSQL counts; there is a heartbeat every few seconds."""


@dataclass(slots=True)
class WorkerState:
    """The state of this process."""

    clock: "Callable[[], float]" = time.monotonic
    started: bool = False
    stopped: bool = False
    is_draining: "Callable[[], bool]" = field(default=lambda: False)
    redis_up: bool = True
    jobs_running: int = 0
    _answered_at: float | None = None
    _trouble: str | None = "has not answered yet"

    def postgres_answered(self) -> None:
        """Note that PostgreSQL took this process's heartbeat."""
        self._answered_at = self.clock()
        self._trouble = None

    def postgres_failed(self, trouble: str) -> None:
        """Note that PostgreSQL did not take it.

        Args:
            trouble: why, in a word: a `db.errors.Trouble`.
        """
        self._trouble = trouble

    @property
    def postgres_up(self) -> bool:
        """Whether PostgreSQL took the last heartbeat, and recently."""
        fresh = self._answered_at is not None and self.clock() - self._answered_at < ANSWER_FRESH_S
        return fresh and self._trouble is None

    @property
    def draining(self) -> bool:
        """Whether this process takes no more jobs."""
        return self.stopped or self.is_draining()

    @property
    def mode(self) -> Mode:
        """`degraded` while Redis does not answer and jobs are claimed from PostgreSQL."""
        return "normal" if self.redis_up else "degraded"

    def reasons_unready(self) -> list[str]:
        """Return why this process is not ready; an empty list means that it is."""
        reasons = []
        if not self.started:
            reasons.append("starting")
        if self.draining:
            reasons.append("draining")
        if not self.postgres_up:
            reasons.append(f"postgresql {self._trouble or 'has not answered for long'}")
        return reasons
