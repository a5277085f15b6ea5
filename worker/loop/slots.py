"""Slots: how a job takes one, and what the loop does when one is free again."""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .completer import BATCH_FRACTION, BATCH_PATIENCE_S

if TYPE_CHECKING:
    import arq.worker

    from .claims import Claim, Claims
    from .leases import LeaseKeeper
    from .suspects import Suspects

HELD_PER_SLOT_MAX: Final = 2
"""Jobs held per slot: one runs, and the completion of another may still be on its way to Redis."""
PARKED_MAX: Final = 256
"""Jobs of one queue that may wait without a slot; each keeps its memory and its lease."""


@dataclass(slots=True, eq=False)
class Slot:
    """A job's own slot, as the job finds it in `ctx["slot"]`."""

    slots: "Slots"
    claim: "Claim"

    def park(self) -> bool:
        """Give the slot away while the job waits; True when another job may use it now.

        False, and the job keeps its slot, when `PARKED_MAX` jobs of its queue wait already, or
        when this one has no slot to give. The lease is renewed, and the job may be cancelled, as
        for any job that runs.
        """
        return self.slots.park(self.claim)

    async def resume(self) -> None:
        """Take a slot again, as soon as one is free and before any new job; at once if not parked.

        Raises:
            asyncio.CancelledError: the job was cancelled; it has no slot then, and needs none to
                end.
        """
        await self.slots.resume(self.claim)


class Slots:
    """The slots of one queue, and the events that say when to fill them.

    The figures that arq shows (`job_counter`, `tasks`) are those of all queues together; they stay
    on the worker, and are kept here.
    """

    def __init__(  # noqa: PLR0913 - what it counts, and where
        self,
        worker: "arq.worker.Worker",
        claims: "Claims",
        leases: "LeaseKeeper",
        *,
        suspects: "Suspects",
        queue_name: str,
        size: int | None = None,
    ) -> None:
        """Begin with every slot free.

        Args:
            worker: counts the jobs of all its queues.
            claims: those that the worker holds.
            leases: renewed from the first job on.
            suspects: while there are any, no slot counts as free.
            queue_name: the queue's key in Redis.
            size: how many slots; None: the worker's `max_jobs`.
        """
        self._worker = worker
        self._claims = claims
        self._leases = leases
        self._suspects = suspects
        self.queue_name = queue_name
        self._size = size
        self.taken_count = 0
        """How many jobs occupy a slot."""
        self._held_count = 0
        self.closed = asyncio.Event()
        """Set while no job may start, because the worker stops."""
        self.changed = asyncio.Event()
        """Set when the fetcher should look again: a ring, a free slot, a job due sooner, a stop."""
        self.awaits_ring = asyncio.Event()
        """Set while a slot is free and Redis is not known to have a due job for it."""
        self.awaits_ring.set()
        self.parked_count = 0
        """How many jobs wait without a slot."""
        self.paused = False
        """Whether jobs are left in the queue, for the time being."""
        self._resuming: deque[tuple[Claim, asyncio.Future[None]]] = deque()
        self._backlog = False
        self._batch_size = max(1, int(self.size * BATCH_FRACTION))
        self._refill: asyncio.TimerHandle | None = None

    @property
    def size(self) -> int:
        """How many jobs of this queue may run at a time."""
        return self._worker.max_jobs if self._size is None else self._size

    @property
    def free_count(self) -> int:
        """How many more jobs could start now; none while a suspect waits or runs."""
        if self._suspects:
            return 0
        size = self.size
        unparked = self._held_count - self.parked_count
        return max(0, min(size - self.taken_count, HELD_PER_SLOT_MAX * size - unparked))

    @property
    def accepting(self) -> bool:
        """Whether a job may start at all."""
        return self._worker.allow_pick_jobs and not self.paused and not self.closed.is_set()

    def open(self) -> None:
        """Let jobs start, from now on."""
        self.closed.clear()
        self.awaits_ring.set()

    def close(self) -> None:
        """Let no more jobs start."""
        self.closed.set()
        self.changed.set()

    def pause(self, *, on: bool) -> None:
        """Leave jobs in the queue, or claim them again; what runs goes on."""
        if on is self.paused:
            return
        self.paused = on
        if on:
            self.awaits_ring.clear()  # rings are for those who claim again first
        elif self.accepting:
            self.awaits_ring.set()
            self.changed.set()

    def take(self, claim: "Claim") -> None:
        """Put a job into a slot; its lease is renewed until the job is released."""
        self._claims.held[claim.job_id] = claim
        self._held_count += 1
        if claim.crashes:
            self._suspects.add(claim)
        self._leases.start()
        self._count(1)
        if not self.free_count:
            self.awaits_ring.clear()

    def free(self, claim: "Claim") -> None:
        """Empty the slot; the job's completion may still be on its way to Redis."""
        if not claim.in_slot:
            return
        claim.in_slot = False
        self._count(-1)
        if self._suspects:
            self._suspects.look_again()
        if self._resuming and self._grant_next():
            return
        if self._backlog:
            self._refill_soon()
        elif self.accepting:
            self.awaits_ring.set()

    def release(self, claim: "Claim") -> None:
        """Forget a job whose task ends."""
        self.free(claim)
        if claim.parked:
            claim.parked = False
            self.parked_count -= 1
        self._claims.held.pop(claim.job_id, None)
        self._held_count -= 1
        self._worker.tasks.pop(claim.job_id, None)
        if self._suspects:
            self._suspects.discard(claim)
            self.changed.set()
        if self._backlog:
            self._refill_soon()
        elif self._worker.burst:
            self.changed.set()

    def _count(self, more: int) -> None:
        self.taken_count += more
        self._worker.job_counter += more

    # Waiting without a slot

    def park(self, claim: "Claim") -> bool:
        """Empty the slot of a job that waits; False when too many wait already."""
        if not claim.in_slot or self.parked_count >= PARKED_MAX:
            return False
        claim.parked = True
        self.parked_count += 1
        self.free(claim)
        return True

    async def resume(self, claim: "Claim") -> None:
        """Put a parked job back into a slot; first come, first served, and before new jobs."""
        if not claim.parked:
            return
        if self.taken_count < self.size and not self._resuming:
            self._unpark(claim)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._resuming.append((claim, granted))
        try:
            await granted
        finally:
            if not granted.done() or granted.cancelled():
                self._resuming.remove((claim, granted))

    def _grant_next(self) -> bool:
        """Give a slot that has become free to the parked job that has waited longest."""
        for claim, granted in self._resuming:
            if not granted.done():
                self._resuming.remove((claim, granted))
                self._unpark(claim)
                granted.set_result(None)
                return True
        return False

    def _unpark(self, claim: "Claim") -> None:
        claim.parked = False
        self.parked_count -= 1
        claim.in_slot = True
        self._count(1)
        if not self.free_count:
            self.awaits_ring.clear()

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

    def _refill_soon(self) -> None:
        """Claim again once it is worth a call; more is known to be due, so no ring is needed."""
        if self.free_count >= self._batch_size:
            self.changed.set()
        elif self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(BATCH_PATIENCE_S, self._refill_now)

    def _refill_now(self) -> None:
        self._refill = None
        self.changed.set()
