"""Slots: how a job takes one, and what the loop does when one is free again."""

import asyncio
from typing import TYPE_CHECKING, Final

from .completer import BATCH_FRACTION, BATCH_PATIENCE_S

if TYPE_CHECKING:
    import arq.worker

    from .claims import Claim, Claims
    from .completer import Completion
    from .leases import LeaseKeeper

HELD_PER_SLOT_MAX: Final = 2
"""Jobs held per slot: one runs, and the completion of another may still be on its way to Redis."""


class Slots:
    """The worker's `max_jobs` slots, and the events that say when to fill them.

    The figures that arq shows (`job_counter`, `tasks`) stay on the worker, and are kept here.
    """

    def __init__(
        self, worker: "arq.worker.Worker", claims: "Claims", leases: "LeaseKeeper"
    ) -> None:
        self._worker = worker
        self._claims = claims
        self._leases = leases
        self.closed = asyncio.Event()
        """Set while no job may start, because the worker stops."""
        self.changed = asyncio.Event()
        """Set when the fetcher should look again: a ring, a free slot, a job due sooner, a stop."""
        self.awaits_ring = asyncio.Event()
        """Set while a slot is free and Redis is not known to have a due job for it."""
        self.awaits_ring.set()
        self._backlog = False
        self._batch_size = max(1, int(worker.max_jobs * BATCH_FRACTION))
        self._refill: asyncio.TimerHandle | None = None

    @property
    def free_count(self) -> int:
        """How many more jobs could start now."""
        worker = self._worker
        room_for_unrecorded = HELD_PER_SLOT_MAX * worker.max_jobs - len(self._claims.held)
        return max(0, min(worker.max_jobs - worker.job_counter, room_for_unrecorded))

    @property
    def accepting(self) -> bool:
        """Whether a job may start at all."""
        return self._worker.allow_pick_jobs and not self.closed.is_set()

    def open(self) -> None:
        """Let jobs start, from now on."""
        self.closed.clear()
        self.awaits_ring.set()

    def close(self) -> None:
        """Let no more jobs start."""
        self.closed.set()
        self.changed.set()

    def take(self, claim: "Claim") -> None:
        """Put a job into a slot; its lease is renewed until the job is released."""
        self._claims.held[claim.job_id] = claim
        self._leases.start()
        self._worker.job_counter += 1
        if not self.free_count:
            self.awaits_ring.clear()

    def free(self, claim: "Claim") -> None:
        """Empty the slot; the job's completion may still be on its way to Redis."""
        if not claim.in_slot:
            return
        claim.in_slot = False
        self._worker.job_counter -= 1
        if self._backlog:
            self._refill_soon()
        elif self.accepting:
            self.awaits_ring.set()

    def release(self, claim: "Claim") -> None:
        """Forget a job whose task ends."""
        self.free(claim)
        self._claims.held.pop(claim.job_id, None)
        self._worker.tasks.pop(claim.job_id, None)
        if self._backlog:
            self._refill_soon()
        elif self._worker.burst:
            self.changed.set()

    # When to talk to Redis

    def note_backlog(self, *, more: bool) -> None:
        """Note whether the last claim left due jobs behind."""
        self._backlog = more
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        if more:
            self.awaits_ring.clear()
        elif self.free_count and self.accepting:
            self.awaits_ring.set()

    def is_batch(self, count: int) -> bool:
        """Return whether so many completions are worth a call to Redis now."""
        return not self._backlog or count >= self._batch_size

    def note_recorded(self, completions: "list[Completion]") -> None:
        """Note that Redis has stored these completions, and so released their leases."""
        for completion in completions:
            claim = self._claims.held.get(completion.job_id)
            if claim is not None:
                claim.owned = False
            if completion.kind != "done":
                # The job may be due at once, or sooner than the fetcher planned to look.
                self.changed.set()

    def _refill_soon(self) -> None:
        """Claim again once it is worth a call; more is known to be due, so no ring is needed."""
        if self.free_count >= self._batch_size:
            self.changed.set()
        elif self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(BATCH_PATIENCE_S, self._refill_now)

    def _refill_now(self) -> None:
        self._refill = None
        self.changed.set()
