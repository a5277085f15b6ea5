"""Finding jobs: claim into the free slots, rest until something happens, outlast a lost Redis."""

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from arq.utils import timestamp_ms

from .claimer import Batch, Claimer
from .connection import LOSS_ERRORS, backoff_s, draw_jitter
from .containment import IN_JOB, create_job_task
from .doorbell import BELL_SUFFIX, Doorbell

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    import arq.worker

    from .claims import Claim, Claims
    from .connection import Connection
    from .ends import Ends
    from .queues import Queues
    from .slots import Slots
    from .suspects import Suspects

logger = logging.getLogger("arq.worker")

CLAIM_MAX: Final = 500
"""Jobs per claim: a longer script would make other clients of Redis wait."""
POLL_DELAY_MIN_S: Final = 0.01
"""arq spins with a poll delay of 0; here whatever matters wakes the loop without polling."""
POLL_JITTER: Final = 0.2
"""Polls come up to this part early, so that workers do not poll in step."""
BURST_OUTAGE_MAX_S: Final = 30.0
"""A burst worker is a command that must end: it gives up on a Redis that is away this long."""
DUPLICATE_DELAY_MS: Final = 100
"""How soon a job is due again that was claimed while the last hook of an earlier run goes on."""


class Fetcher:
    """Claims jobs of one queue and starts them."""

    def __init__(  # noqa: PLR0913 - the parts of the loop that it joins
        self,
        worker: "arq.worker.Worker",
        connection: "Connection",
        claims: "Claims",
        slots: "Slots",
        *,
        queues: "Queues",
        suspects: "Suspects",
        ends: "Ends",
        passed_over: "Collection[str]",
        chores: "Callable[[], Awaitable[None]] | None" = None,
    ) -> None:
        """Prepare to fill these slots.

        Args:
            worker: has arq's options and counters.
            connection: to Redis.
            claims: the jobs that the worker holds.
            slots: those of the queue.
            queues: all that the worker serves; a burst ends once none has a job.
            suspects: whether they are claimed.
            ends: gives back what must not start.
            passed_over: the jobs that a burst run leaves in the queue.
            chores: done at each poll, for the whole worker.
        """
        self._worker = worker
        self._connection = connection
        self._claims = claims
        self._slots = slots
        self._queues = queues
        self._ends = ends
        self._passed_over = passed_over
        self._suspects = suspects
        self._chores = chores
        self.claimer = Claimer(claims, slots.queue_name)
        self._doorbell = Doorbell(slots.queue_name + BELL_SUFFIX, connection, slots.awaits_ring)
        self._next_poll_at = 0.0
        self._next_due_at: float | None = None
        self._failed_turns = 0
        self._lost_since: float | None = None
        # The answer to a claim was lost: Redis may have leased jobs that this worker does not know.
        self._claim_in_doubt = False

    async def run(self) -> None:
        """Claim, start, rest; until the slots close or, in burst mode, until nothing is left."""
        self._next_poll_at = 0.0
        IN_JOB.set(True)
        burst = self._worker.burst
        listener = None if burst else self._listen()
        try:
            while not self._slots.closed.is_set():
                try:
                    await self._turn()
                    if burst and await self._burst_is_over():
                        return
                except LOSS_ERRORS as error:
                    await self._outlast(error)
                else:
                    self._failed_turns, self._lost_since = 0, None
                    await self.rest()
        finally:
            if listener is not None:
                listener.cancel()
                await asyncio.wait({listener})

    def _listen(self) -> "asyncio.Task[None]":
        listening = self._doorbell.listen(self._worker.pool, self._slots.changed.set)
        return asyncio.get_running_loop().create_task(listening)

    async def _turn(self) -> None:
        if not self._connection.available:
            # An empty claim proves what a ping does not: that Redis would run a claim.
            await self.claim(0)
        if self._claim_in_doubt:
            await self._connection.call(self.claimer.disown(self._worker.pool))
            self._claim_in_doubt = False
        if _now() < self._next_poll_at:
            await self.fill_slots()
            return
        delay_s = max(self._worker.poll_delay_s, POLL_DELAY_MIN_S)
        self._next_poll_at = _now() + delay_s * (1 - POLL_JITTER * draw_jitter())
        await self.poll()

    async def poll(self) -> None:
        """Do everything that is not announced by a ring: cron, health, aborts, new jobs."""
        if self._chores is not None:
            await self._chores()
        await self.fill_slots()

    # Claim

    @property
    def wanted(self) -> int:
        """How many jobs the next claim asks for."""
        if not self._slots.accepting:
            return 0
        worker = self._worker
        wanted = min(self._slots.free_count, worker.queue_read_limit, CLAIM_MAX)
        if worker.burst and worker.max_burst_jobs >= 0:
            wanted = min(wanted, worker.max_burst_jobs - self.started_count)
        return wanted

    async def fill_slots(self) -> None:
        """Claim and start as many jobs as there are free slots, and note what is left."""
        wanted = self.wanted
        if wanted < 1:
            return
        batch = await self.claim(wanted)
        self._slots.note_backlog(more=batch.more)
        self._next_due_at = None if batch.next_due_in_s is None else _now() + batch.next_due_in_s
        if batch.more and self._slots.free_count:
            self._slots.changed.set()

    async def claim(self, wanted: int, only: "Sequence[bytes]" = ()) -> Batch:
        """Claim and start up to `wanted` due jobs, or those of `only` that are due and free."""
        worker = self._worker
        claiming = self.claimer.claim(
            worker.pool,
            wanted,
            aborts=worker.allow_abort_jobs,
            suspects=self._suspects.wanted,
            only=only,
        )
        try:
            batch = await self._connection.call(claiming)
        except LOSS_ERRORS:
            self._claim_in_doubt = True
            raise
        for claim in batch.claims:
            self.start(claim)
        if batch.unreadable:
            logger.error("%d members of the queue cannot be jobs: set aside", len(batch.unreadable))
            await self._connection.call(self.claimer.set_aside(worker.pool, batch))
        return batch

    async def claim_only(self, job_ids: list[bytes]) -> None:
        """Claim and start those of the given jobs that are due and free, up to the free slots."""
        wanted = min(self._slots.free_count, len(job_ids))
        if wanted > 0:
            await self.claim(wanted, only=job_ids[:wanted])

    # Start

    def start(self, claim: "Claim") -> None:
        """Start a claimed job, or give it back if it must not start."""
        if self._slots.closed.is_set():
            # The stop came while the claim was under way.
            self._ends.give_back(claim, claim.score)
            return
        earlier = self._claims.held.get(claim.job_id)
        if earlier is not None:
            self._start_duplicate(earlier, claim)
            return
        self._slots.take(claim)
        job = self._worker.run_job(claim.job_id, claim.score)
        loop = asyncio.get_running_loop()
        self._worker.tasks[claim.job_id] = create_job_task(loop, job)

    def _start_duplicate(self, earlier: "Claim", claim: "Claim") -> None:
        """Deal with a job that is claimed while an earlier delivery of it is still here."""
        if earlier.ended:
            # The job was put back, and its last hook still runs.
            self._ends.give_back(claim, timestamp_ms() + DUPLICATE_DELAY_MS)
            return
        # A client enqueued the job again after a flush of Redis: the new lease is for the run that
        # goes on, not for a second one beside it.
        earlier.tries = claim.tries
        earlier.owned = earlier.in_redis = True
        logger.warning("job %s was delivered again while it runs here", claim.job_id)

    # Rest

    async def rest(self) -> None:
        """Sleep until a ring, a free slot, the next deferred job or the next poll."""
        wake_at = self._next_poll_at
        if self._next_due_at is not None and self._slots.free_count:
            wake_at = min(wake_at, self._next_due_at)
        await _wait(self._slots.changed, wake_at - _now())
        self._slots.changed.clear()

    async def _outlast(self, error: BaseException) -> None:
        """Wait before the next turn, because Redis is away; jobs that run go on meanwhile."""
        self._connection.lose(error)
        self._lost_since = self._lost_since or _now()
        if self._worker.burst and _now() - self._lost_since > BURST_OUTAGE_MAX_S:
            raise error
        # Connections that were idle when Redis went away are dead, but do not know it.
        await self._worker.pool.connection_pool.disconnect(inuse_connections=False)
        await _wait(self._slots.closed, backoff_s(self._failed_turns, draw_jitter()))
        self._failed_turns += 1

    # Burst mode

    @property
    def started_count(self) -> int:
        """How many jobs were started, each counted once."""
        worker = self._worker
        uncounted = sum(not claim.counted for claim in self._claims.held.values())
        return worker.jobs_complete + worker.jobs_retried + worker.jobs_failed + uncounted

    async def _burst_is_over(self) -> bool:
        tasks = self._worker.tasks
        if 0 <= self._worker.max_burst_jobs <= self.started_count:
            if tasks:
                await asyncio.wait(tasks.values())
            return True
        if tasks:
            return False  # a running job is in the queue until its completion is recorded
        return await self._connection.call(self._nothing_is_queued())

    async def _nothing_is_queued(self) -> bool:
        redis, passed_over = self._worker.pool, self._passed_over
        for queue_name in self._queues.names:
            if self._queues[queue_name].paused:
                continue
            queued: int = await redis.zcard(queue_name)
            if queued and passed_over:
                scores = await redis.zmscore(queue_name, list(passed_over))
                queued -= sum(score is not None for score in scores)
            if queued:
                return False
        return True


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _wait(event: asyncio.Event, patience_s: float) -> None:
    """Wait for an event, at most `patience_s`; other tasks get a turn in any case."""
    if patience_s <= 0 or event.is_set():
        await asyncio.sleep(0)
        return
    try:
        async with asyncio.timeout(patience_s):
            await event.wait()
    except TimeoutError:
        return
