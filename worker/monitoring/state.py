"""The state of a worker process and of its servers, and whether it is ready.

Written by the event loop, read by the health thread: single attributes, no locks.
"""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from worker.monitoring.servers import EVICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from db.pauses import Pause

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
    slots: "Mapping[str, int]" = field(default_factory=dict)
    """Jobs at a time of each queue that this process serves, by name."""
    slots_taken: "Callable[[], Mapping[str, int]]" = field(default=dict)
    """Returns how many of them are taken; arq's stock loop does not say."""
    redis_trouble: str | None = None
    """What is wrong with Redis, a word of `servers.py`."""
    other_queues: tuple[str, ...] = ()
    """Where other workers of this database look for queues of ours: they take each other's jobs."""
    pauses: "tuple[Pause, ...]" = ()
    """What does not run at the moment."""
    quarantined_of: dict[str, int] = field(default_factory=dict)
    """Members of each queue that cannot be jobs and are not yet in the record, by its key."""
    jobs_running: int = 0
    _answered_at: float | None = None
    _trouble: str | None = "no_answer_yet"

    @property
    def quarantined(self) -> int:
        """Members of all queues that cannot be jobs and are not yet in the record."""
        return sum(self.quarantined_of.values())

    def postgres_answered(self) -> None:
        """Note that PostgreSQL took this process's heartbeat."""
        self._answered_at = self.clock()
        self._trouble = None

    def postgres_failed(self, trouble: str) -> None:
        """Note that PostgreSQL did not take it.

        Args:
            trouble: why, in a word of `servers.py`.
        """
        self._trouble = trouble

    @property
    def postgres_up(self) -> bool:
        """Whether PostgreSQL took the last heartbeat, and recently."""
        fresh = self._answered_at is not None and self.clock() - self._answered_at < ANSWER_FRESH_S
        return fresh and self._trouble is None

    @property
    def postgres_trouble(self) -> str | None:
        """What is wrong with PostgreSQL, in a word; None where nothing is."""
        return None if self.postgres_up else self._trouble or "silent"

    @property
    def redis_up(self) -> bool:
        """Whether jobs come from Redis."""
        return self.redis_trouble in (None, EVICTS)

    @property
    def draining(self) -> bool:
        """Whether this process takes no more jobs."""
        return self.stopped or self.is_draining()

    @property
    def mode(self) -> Mode:
        """`degraded` while Redis does not serve and jobs are claimed from PostgreSQL."""
        return "normal" if self.redis_up else "degraded"

    def reasons_unready(self) -> list[str]:
        """Return why this process is not ready; an empty list means that it is."""
        reasons = []
        if not self.started:
            reasons.append("starting")
        if self.draining:
            reasons.append("draining")
        if self.postgres_trouble is not None:
            reasons.append(f"postgresql {self.postgres_trouble}")
        return reasons

    def queues(self) -> "dict[str, dict[str, Any]]":
        """Return the slots of each queue, how many are taken, and whether the queue is paused."""
        taken, paused = self.slots_taken(), {pause.target for pause in self.pauses}
        return {
            name: {"slots": slots, "taken": taken.get(name), "paused": f"queue:{name}" in paused}
            for name, slots in self.slots.items()
        }

    def warnings(self) -> list[str]:
        """Return what somebody should mend though this process works."""
        found = [] if self.redis_trouble is None else [f"redis {self.redis_trouble}"]
        if self.other_queues:
            found.append(f"the same queues under other keys: {', '.join(self.other_queues)}")
        found += [
            f"{pause.what} {pause.name} is paused by {pause.by}: {pause.reason}"
            for pause in self.pauses
        ]
        if self.quarantined:
            found.append(f"{self.quarantined} members of the queue are in quarantine")
        return found
