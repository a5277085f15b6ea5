"""Slots: which jobs are here, how one gets in, and what happens when it leaves."""

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from arq.utils import timestamp_ms

from .claims import Claim
from .completer import BATCH_PATIENCE_S, Completion
from .decode import ReadyJob
from .lease_watchdog import LeaseWatchdog
from .leases import LeaseKeeper
from .pool import clone_pool, open_pool
from .runner import JobRunner

if TYPE_CHECKING:
    from collections.abc import Sequence

    from arq.connections import ArqRedis, RedisSettings

    from .outcomes import RunOutcome

logger = logging.getLogger("arq.worker")

HELD_PER_SLOT_MAX: Final = 2
"""Jobs held per slot: one runs, and the end of another may still be on its way to Redis."""
MEETING_DELAY_MS: Final = 100
"""How soon a job is looked at again that was claimed while its last hook still ran."""


class JobSlots(JobRunner):
    """The part of the worker that starts jobs and lets go of them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - arq's thirty options
        super().__init__(*args, **kwargs)
        # The loop may be blocked for as long as arq's own in-progress key would have lasted.
        watchdog = LeaseWatchdog(self._claims, self.in_progress_timeout_s, self._second_client)
        self._leases = LeaseKeeper(self._claims, self._script, watchdog)
        self.connection.on_back.append(self._leases.renew_soon)
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        # Set while this worker would take another job.
        self._awaits_ring = asyncio.Event()
        self._awaits_ring.set()
        self._refill: asyncio.TimerHandle | None = None

    def _open_pool(self, settings: "RedisSettings") -> "ArqRedis":
        return open_pool(
            settings,
            queue_name=self.queue_name,
            job_serializer=self.job_serializer,
            job_deserializer=self.job_deserializer,
            expires_extra_ms=self.expires_extra_ms,
        )

    def _second_client(self) -> "ArqRedis | None":
        """Return a client for the stand-in's own event loop, where one can be made."""
        if self.redis_settings is not None:
            return self._open_pool(self.redis_settings)
        return None if self._pool is None else clone_pool(self._pool)

    @property
    def free_slots(self) -> int:
        """How many more jobs this worker could run now."""
        unrecorded_bound = HELD_PER_SLOT_MAX * self.max_jobs - len(self._held)
        return max(0, min(self.max_jobs - self.job_counter, unrecorded_bound))

    @property
    def _accepting(self) -> bool:
        return self.allow_pick_jobs and not self._stop.is_set() and not self._shutting_down

    # In

    def _start(self, claim: Claim) -> None:
        if self._shutting_down or self._stop.is_set():
            # The stop came while the claim was under way.
            self._completer.add(Completion(claim.job_id, claim.tries, "back", claim.score))
            return
        earlier = self._held.get(claim.job_id)
        if earlier is not None:
            self._meet(earlier, claim)
            return
        self._hold(claim)
        job = self.run_job(claim.job_id, claim.score)
        self.tasks[claim.job_id] = asyncio.get_running_loop().create_task(job)

    def _meet(self, earlier: Claim, claim: Claim) -> None:
        """Deal with a job that is claimed while an earlier delivery of it is still here."""
        if earlier.ended:
            # It was put back, and its last hook still runs.
            due_ms = timestamp_ms() + MEETING_DELAY_MS
            self._completer.add(Completion(claim.job_id, claim.tries, "back", due_ms))
            return
        # A flushed Redis was given the job again: the new lease is for the run there is, not for a
        # second one beside it.
        earlier.tries = claim.tries
        earlier.owned = earlier.in_redis = True
        logger.warning("job %s was delivered again while it runs here", claim.job_id)

    def run_local(
        self,
        job_id: str,
        function: str,
        args: "Sequence[Any]" = (),
        *,
        job_try: int = 1,
        enqueue_ms: int | None = None,
    ) -> "asyncio.Task[RunOutcome]":
        """Run a job that did not come from Redis in a slot of this worker.

        It has the same hooks, context and timeout as any other; Redis is told nothing of it, so
        what the outcome means is the caller's to carry out.

        Raises:
            KeyError: no such function.
            ValueError: the job runs here already, or no slot is free.
        """
        if job_id in self._held or not self.free_slots:
            raise ValueError(f"job {job_id}: it runs here already, or no slot is free")
        now_ms = timestamp_ms()
        claim = Claim(job_id, None, job_try, now_ms, in_redis=False, owned=False)
        enqueued_ms = now_ms if enqueue_ms is None else enqueue_ms
        job = ReadyJob(
            job_id,
            function,
            self.functions[function],
            tuple(args),
            {},
            job_try,
            now_ms,
            enqueued_ms,
        )
        self._hold(claim)
        task = asyncio.get_running_loop().create_task(self._run_local(claim, job))
        self.tasks[job_id] = task
        return task

    async def _run_local(self, claim: Claim, job: ReadyJob) -> "RunOutcome":
        try:
            return await self._carry_out(claim, job)
        finally:
            self._let_go(claim)

    def _hold(self, claim: Claim) -> None:
        self._held[claim.job_id] = claim
        self._leases.start()
        self.job_counter += 1
        if not self.free_slots:
            self._awaits_ring.clear()

    # Out

    def _free_slot(self, claim: Claim) -> None:
        if not claim.in_slot:
            return
        claim.in_slot = False
        self.job_counter -= 1
        if self._backlog:
            self._refill_soon()
        elif self._accepting:
            self._awaits_ring.set()

    def _refill_soon(self) -> None:
        """Claim again once it is worth a call; no ring is needed to know that more is due."""
        if self.free_slots >= self._quorum:
            self._wake.set()
        elif self._refill is None:
            self._refill = asyncio.get_running_loop().call_later(BATCH_PATIENCE_S, self._refill_now)

    def _refill_now(self) -> None:
        self._refill = None
        self._wake.set()

    def _recorded(self, completions: list[Completion]) -> None:
        for completion in completions:
            claim = self._held.get(completion.job_id)
            if claim is not None:
                claim.owned = False  # the lease is released: nothing to renew, nothing to lose
            if completion.kind != "done":
                self._wake.set()  # it may be due at once, or sooner than what we rest for

    def _let_go(self, claim: Claim) -> None:
        self._free_slot(claim)
        self._held.pop(claim.job_id, None)
        self.tasks.pop(claim.job_id, None)
        if self._backlog:
            self._refill_soon()
        elif self.burst:
            self._wake.set()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()
