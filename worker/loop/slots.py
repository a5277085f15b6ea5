"""Slots: how a job takes one, and what the loop does when one is free again."""

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .completer import BATCH_FRACTION, BATCH_PATIENCE_S

if TYPE_CHECKING:
    import arq.worker

    from .claims import Claim, Claims
    from .completer import Completion
    from .leases import LeaseKeeper

HELD_PER_SLOT_MAX: Final = 2
"""Jobs held per slot: one runs, and the completion of another may still be on its way to Redis."""
ALONE_WAIT_S: Final = 15.0
"""How long a suspect waits for the other jobs of its process to end; meanwhile none is claimed."""
SUSPECTS_REST_S: Final = 60.0
"""For how long a process claims no suspect after one has waited in vain."""
PARKED_MAX: Final = 256
"""Jobs of this process that may wait without a slot; each keeps its memory and its lease."""


@dataclass(slots=True, eq=False)
class Slot:
    """A job's own slot, as the job finds it in `ctx["slot"]`."""

    slots: "Slots"
    claim: "Claim"

    def park(self) -> bool:
        """Give the slot away while the job waits; True when another job may use it now.

        False, and the job keeps its slot, when `PARKED_MAX` jobs of this process wait already, or
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
        self.parked_count = 0
        """How many jobs wait without a slot."""
        self._suspects: dict[str, Claim] = {}
        self._suspects_rest_until = 0.0
        self._others_left = asyncio.Event()
        self._resuming: deque[tuple[Claim, asyncio.Future[None]]] = deque()
        self._backlog = False
        self._batch_size = max(1, int(worker.max_jobs * BATCH_FRACTION))
        self._refill: asyncio.TimerHandle | None = None

    @property
    def free_count(self) -> int:
        """How many more jobs could start now; none while a suspect waits or runs."""
        worker = self._worker
        if self._suspects:
            return 0
        unparked = len(self._claims.held) - self.parked_count
        room_for_unrecorded = HELD_PER_SLOT_MAX * worker.max_jobs - unparked
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
        self._others_left.set()

    def take(self, claim: "Claim") -> None:
        """Put a job into a slot; its lease is renewed until the job is released."""
        self._claims.held[claim.job_id] = claim
        if claim.crashes:
            self._suspects[claim.job_id] = claim
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
        if self._suspects:
            self._others_left.set()
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
        self._worker.tasks.pop(claim.job_id, None)
        if self._suspects:
            self._suspects.pop(claim.job_id, None)
            self._others_left.set()
            self.changed.set()
        if self._backlog:
            self._refill_soon()
        elif self._worker.burst:
            self.changed.set()

    # Suspects: jobs under which a process died

    @property
    def take_suspects(self) -> bool:
        """Whether this process claims suspects at the moment."""
        return self._suspects_rest_until <= asyncio.get_running_loop().time()

    async def wait_alone(self, claim: "Claim") -> bool:
        """Wait until a suspect is the only job in this process; False when it must not run here.

        It must not when the others go on for too long, or when the worker stops or drains.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(ALONE_WAIT_S):
                while self.accepting:
                    if self._is_alone(claim):
                        return True
                    self._others_left.clear()
                    await self._others_left.wait()
                return False
        self._suspects_rest_until = asyncio.get_running_loop().time() + SUSPECTS_REST_S
        return False

    def stop_suspects(self) -> None:
        """Let suspects that still wait know that the worker drains."""
        self._others_left.set()

    def _is_alone(self, claim: "Claim") -> bool:
        first = next(iter(self._suspects.values()))
        if first is not claim:
            return False
        # While Redis is away the ends of others may wait for it, however long, and run no more.
        return all(
            other.recording and not claim.in_redis
            for job_id, other in self._claims.held.items()
            if job_id not in self._suspects
        )

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
        if self._worker.job_counter < self._worker.max_jobs and not self._resuming:
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
        self._worker.job_counter += 1
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
