"""One delivery under way: what is known of it, and how far it is."""

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from worker.execution.attempts import Kept
from worker.execution.commit import CommitWindow
from worker.execution.delivery import resumed
from worker.execution.outcome import Later

if TYPE_CHECKING:
    from collections.abc import Mapping

    from db.execution import Stored
    from jobs import Job
    from worker.execution.delivery import Delivery


@dataclass(slots=True)
class Run:
    """One delivery under way; the row may correct what was delivered."""

    job: "Job | None"
    """None while no job here has the kind."""
    delivery: "Delivery"
    tries: int = 0
    superseded: int = 0
    window: CommitWindow = field(default_factory=CommitWindow)
    kept: Kept = field(default_factory=Kept)
    began_at: float = 0.0
    """Monotonic time of the first try's beginning, after it waited for its turn."""

    @property
    def elapsed_s(self) -> float:
        """Seconds since the first try began."""
        return time.monotonic() - self.began_at if self.began_at else 0.0

    @property
    def needs_its_row(self) -> bool:
        """Whether a try begins with the job's row; a newer payload may stand there."""
        replaces = self.job is not None and self.job.policy.replace
        return (
            self.delivery.needs_its_row or self.tries > 1 or replaces or self.expires_in is not None
        )

    @property
    def expires_in(self) -> timedelta | None:
        """How long ago a job that comes for the first time has expired; None if it has not.

        By this process's clock: its row, if there was one before, knows better.
        """
        wanted = None if self.job is None else self.job.policy.expires_after
        if wanted is None or self.delivery.try_number > 1 or self.delivery.crashes:
            return None
        left = wanted - timedelta(seconds=self.delivery.wait_s)
        return left if left <= timedelta() else None

    def resume(self, stored: "Stored", jobs: "Mapping[str, Job]") -> None:
        """Go on with what the row has."""
        self.delivery = resumed(self.delivery, stored)
        if self.job is None or self.job.kind != stored.kind:
            self.job = jobs.get(stored.kind)


def not_due(job: "Job | None", stored: "Stored") -> Later | None:
    """Return what becomes of a job whose time was moved after it was sent; None if it is due."""
    if job is None or not job.policy.replace or stored.is_leased or stored.waits <= timedelta():
        return None
    return Later(stored.waits)
