"""Finding jobs: claim into the free slots, rest until something happens, outlast a lost Redis."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from .aborts import Aborts
from .claimer import Batch, Claimer
from .connection import LOSS_ERRORS, backoff_s, draw_jitter
from .doorbell import BELL_SUFFIX, Doorbell
from .slots import JobSlots

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("arq.worker")

CLAIM_MAX: Final = 500
"""Jobs per claim: a longer script would make other clients of Redis wait."""
POLL_DELAY_MIN_S: Final = 0.01
"""arq spins with a poll delay of 0; here whatever matters wakes the loop without polling."""
POLL_JITTER: Final = 0.2
"""Polls come up to this part early, so that workers do not poll in step."""
BURST_OUTAGE_MAX_S: Final = 30.0
"""A burst worker is a command that must end: it gives up on a Redis that is away this long."""


class JobLoop(JobSlots):
    """The part of the worker that finds jobs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - arq's thirty options
        super().__init__(*args, **kwargs)
        bell_key = self.queue_name + BELL_SUFFIX
        self._claimer = Claimer(self._claims, bell_key)
        self._doorbell = Doorbell(bell_key, self.connection, self._awaits_ring)
        self._aborts = Aborts()
        self._next_poll_at = 0.0
        self._next_due_at: float | None = None
        self._failed_turns = 0
        self._lost_since: float | None = None
        # A claim's answer was lost: Redis may have leased us jobs that we do not know of.
        self._claim_in_doubt = False

    async def _work(self) -> None:
        """Claim, start, rest; until told to stop or, in burst mode, until nothing is left."""
        listener = None if self.burst else self._listen()
        try:
            while not self._stop.is_set():
                try:
                    await self._turn()
                    if self.burst and await self._burst_is_over():
                        return
                except LOSS_ERRORS as error:
                    await self._outlast(error)
                else:
                    self._failed_turns, self._lost_since = 0, None
                    await self._rest()
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.wait({listener})

    def _listen(self) -> "asyncio.Task[None]":
        listening = self._doorbell.listen(self.pool, self._wake.set)
        return asyncio.get_running_loop().create_task(listening)

    async def _turn(self) -> None:
        if not self.connection.available:
            # Asking for nothing proves what a ping does not: that Redis would let us claim.
            await self._claim(0)
        if self._claim_in_doubt:
            await self.connection.call(self._claimer.disown(self.pool))
            self._claim_in_doubt = False
        if self._now() < self._next_poll_at:
            await self._fill_slots()
            return
        delay_s = max(self.poll_delay_s, POLL_DELAY_MIN_S) * (1 - POLL_JITTER * draw_jitter())
        self._next_poll_at = self._now() + delay_s
        await self._poll_iteration()

    async def _poll_iteration(self) -> None:
        # First, so that a cron job that is due is claimed in the same breath.
        await self.heart_beat()
        if self.allow_abort_jobs:
            await self._cancel_aborted_jobs()
        await self._fill_slots()

    async def heart_beat(self) -> None:
        """Record the worker's health and enqueue what its cron jobs have due."""
        try:
            await self.connection.watch(super().heart_beat())
        except LOSS_ERRORS:
            raise
        except Exception:
            logger.exception("the heart beat failed; the worker goes on")

    # Claiming

    def _wanted(self) -> int:
        if not self._accepting:
            return 0
        wanted = min(self.free_slots, self.queue_read_limit, CLAIM_MAX)
        if self.burst and self.max_burst_jobs >= 0:
            wanted = min(wanted, self.max_burst_jobs - self._jobs_started())
        return wanted

    async def _fill_slots(self) -> None:
        wanted = self._wanted()
        if wanted < 1:
            return
        batch = await self._claim(wanted)
        self._note_backlog(more=batch.more)
        self._next_due_at = (
            None if batch.next_due_in_s is None else self._now() + batch.next_due_in_s
        )
        if batch.more and self.free_slots:
            self._wake.set()

    def _note_backlog(self, *, more: bool) -> None:
        self._backlog = more
        if self._refill is not None:
            self._refill.cancel()
            self._refill = None
        if more:
            self._awaits_ring.clear()
        elif self.free_slots and self._accepting:
            self._awaits_ring.set()

    async def _claim(self, wanted: int, only: "Sequence[bytes]" = ()) -> Batch:
        claiming = self._claimer.claim(self.pool, wanted, aborts=self.allow_abort_jobs, only=only)
        try:
            batch = await self.connection.call(claiming)
        except LOSS_ERRORS:
            self._claim_in_doubt = True
            raise
        for claim in batch.claims:
            self._start(claim)
        return batch

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start those of the given jobs that are due and free, up to the free slots."""
        wanted = min(self.free_slots, len(job_ids))
        if wanted > 0:
            await self._claim(wanted, only=job_ids[:wanted])

    # Resting

    async def _rest(self) -> None:
        """Sleep until a ring, a free slot, the next deferred job or the next poll."""
        wake_at = self._next_poll_at
        if self._next_due_at is not None and self.free_slots:
            wake_at = min(wake_at, self._next_due_at)
        await _wait(self._wake, wake_at - self._now())
        self._wake.clear()

    def _jobs_started(self) -> int:
        uncounted = sum(not claim.counted for claim in self._held.values())
        return self.jobs_complete + self.jobs_retried + self.jobs_failed + uncounted

    async def _burst_is_over(self) -> bool:
        if 0 <= self.max_burst_jobs <= self._jobs_started():
            if self.tasks:
                await asyncio.wait(self.tasks.values())
            return True
        if self.tasks:
            return False  # a running job is in the queue until its end is recorded
        return await self.connection.call(self._queue_is_empty())

    async def _queue_is_empty(self) -> bool:
        queued: int = await self.pool.zcard(self.queue_name)
        if queued and self._passed_over:
            scores = await self.pool.zmscore(self.queue_name, list(self._passed_over))
            queued -= sum(score is not None for score in scores)
        return queued == 0

    # Redis comes and goes

    async def _outlast(self, error: BaseException) -> None:
        """Let some time pass before the next turn; what runs goes on meanwhile."""
        self.connection.lose(error)
        self._lost_since = self._lost_since or self._now()
        if self.burst and self._now() - self._lost_since > BURST_OUTAGE_MAX_S:
            raise error
        # Connections that were idle when Redis went do not know that it did.
        await self.pool.connection_pool.disconnect(inuse_connections=False)
        await _wait(self._stop, backoff_s(self._failed_turns, draw_jitter()))
        self._failed_turns += 1

    # Aborts

    async def _cancel_aborted_jobs(self) -> None:
        """Cancel what clients want to end."""
        aborts = await self.connection.call(self._aborts.read(self.pool))
        answered = []
        for abort in aborts:
            task = self.job_tasks.get(abort.job_id)
            if task is None:
                continue
            answered.append(abort.job_id)
            # An abort that is older than the job was meant for an earlier one of the same id.
            if abort.at_ms >= self._held[abort.job_id].enqueue_ms:
                self.aborting_tasks.add(abort.job_id)
                task.cancel()
        if aborts:
            await self.connection.call(self._aborts.clear(self.pool, aborts, answered))


async def _wait(event: asyncio.Event, patience_s: float) -> None:
    """Wait for an event, at most `patience_s`; always let others run."""
    if patience_s <= 0 or event.is_set():
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(patience_s):
            await event.wait()
    except TimeoutError:
        return
