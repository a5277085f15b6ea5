"""The worker: a drop-in `arq.worker.Worker` that claims in batches and outlives its servers.

This file is what its owner calls: start, stop, and the seams of arq. The work is done by the parts
that the constructor puts together: `fetcher.py` finds jobs of one queue, `slots.py` counts them in
and out, `runner.py` runs one. What Redis does in each step is in `lua/`.
"""

import asyncio
import inspect
import logging
import math
import os
import signal
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import uuid4

import arq.worker as arq_worker
from arq.connections import log_redis_info
from arq.utils import timestamp_ms
from arq.worker import FailedJobs
from redis.exceptions import NoPermissionError

from .aborts import Aborts
from .claims import Claim, Claims
from .completer import Completer
from .connection import LOSS_ERRORS, Connection, is_loss, is_refusal
from .containment import contain_exits
from .decode import ReadyJob
from .ends import Ends
from .eventloop import prefer_uvloop
from .fetcher import Fetcher
from .lease_watchdog import LeaseWatchdog
from .leases import LeaseKeeper
from .pool import open_pool, open_second_pool
from .queues import Queues
from .refusals import Refusals
from .runner import Runner
from .slots import Slots
from .suspects import Suspects

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from signal import Signals

    from .outcomes import RunOutcome
    from .scripts import Script

logger = logging.getLogger("arq.worker")

STOP_PATIENCE_S: Final = 5.0
"""How long a stop waits for a claim that is under way, so that its jobs can be given back."""
CANCEL_PATIENCE_S: Final = 10.0
"""How long a shutdown waits for cancelled jobs to unwind; a commit may be under way."""
SETTLE_INTERVAL_S: Final = 0.05
"""How often a shutdown checks whether jobs still run."""
RECORD_PATIENCE_S: Final = 5.0
"""How long a shutdown waits for Redis to store completions."""
LAST_HOOK_PATIENCE_S: Final = 1.0
"""How long a shutdown waits for `after_job_end` of jobs whose completion Redis did not store."""


class Worker(arq_worker.Worker):
    """A drop-in `arq.worker.Worker`: the same constructor, hooks, keys and results.

    docs/loop.md lists every difference.
    """

    lease_s: ClassVar[float] = 8.0
    """How long a claim holds unrenewed; after it, a killed worker's jobs run elsewhere."""

    # arq picks a worker's options out of a settings class by this signature.
    __signature__ = inspect.signature(arq_worker.Worker)

    def __init__(
        self,
        *args: Any,  # noqa: ANN401 - arq's thirty options
        other_queues: "Mapping[str, int] | None" = None,
        **kwargs: Any,  # noqa: ANN401 - as above
    ) -> None:
        """Put the parts together.

        Args:
            *args: arq's.
            other_queues: served beside `queue_name`: the number of slots of each, by its key. The
                slots of `queue_name` are `max_jobs`.
            **kwargs: arq's.
        """
        prefer_uvloop()
        super().__init__(*args, **kwargs)
        self.worker_id = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
        """The value of an in-progress key while this worker runs the job."""
        self.connection = connection = Connection()
        self.claims = claims = Claims(self.worker_id, self.lease_s)
        # The event loop may be blocked for as long as arq's own in-progress key would have lasted.
        watchdog = LeaseWatchdog(claims, self.in_progress_timeout_s, lambda: open_second_pool(self))
        self.leases = LeaseKeeper(claims, self._run_script, watchdog)
        connection.on_back.append(self.leases.renew_soon)
        suspects = Suspects(claims)
        sizes = {self.queue_name: None, **(other_queues or {})}
        all_slots = [
            Slots(self, claims, self.leases, suspects=suspects, queue_name=name, size=size)
            for name, size in sizes.items()
        ]
        self.queues = queues = Queues(all_slots, claims, suspects)
        self.slots = queues[self.queue_name]
        # With one queue, the calls per job are the same as if there were no others.
        is_batch = self.slots.is_batch if len(all_slots) == 1 else queues.is_batch
        self.completer = completer = Completer(
            claims, self._run_script, queues.note_recorded, is_batch, self._attempt_script
        )
        self.ends = ends = Ends(self, queues, completer)
        self.refusals = Refusals(self, self.worker_id, connection, ends)
        self.runner = Runner(
            *(self, connection, claims, queues),
            suspects=suspects,
            ends=ends,
            refusals=self.refusals,
        )
        self._aborts = Aborts(self, connection, claims)
        self.fetchers = [
            Fetcher(
                *(self, connection, claims, slots),
                queues=queues,
                suspects=suspects,
                ends=ends,
                passed_over=self.refusals.passed_over,
                chores=self._do_chores if slots is self.slots else None,
            )
            for slots in all_slots
        ]
        self.fetcher = self.fetchers[0]
        self._draining = False
        self._hurry = asyncio.Event()
        self._fetching: asyncio.Task[None] | None = None

    async def _run_script(
        self, script: "Script", keys: "Sequence[str]", args: "Sequence[Any]"
    ) -> Any:  # noqa: ANN401 - a script answers what it likes
        return await self.connection.call(script(self.pool, keys, args))

    async def _attempt_script(
        self, script: "Script", keys: "Sequence[str]", args: "Sequence[Any]", size: int
    ) -> Any:  # noqa: ANN401 - as above
        answer = await self.connection.attempt(script(self.pool, keys, args), size=size)
        self.connection.regain()
        return answer

    @property
    def redis_available(self) -> bool:
        """Whether Redis answers; `connection` knows since when, and calls subscribers."""
        return self.connection.available

    @property
    def free_slots(self) -> int:
        """How many more jobs could start now, in all queues together."""
        return self.queues.free_count

    def run_local(  # noqa: PLR0913 - what is known of a job
        self,
        job_id: str,
        function: str,
        args: "Sequence[Any]" = (),
        *,
        job_try: int = 1,
        enqueue_ms: int | None = None,
        crashes: int = 0,
        queue_name: str | None = None,
    ) -> "asyncio.Task[RunOutcome]":
        """Run a job that did not come from Redis in a slot of this worker.

        `queue_name` says of which of its queues; its own by default. It has the same hooks, context
        and timeout as any other. Nothing about it is written to Redis, so acting on its outcome is
        up to the caller. A job under which processes died (`crashes`) runs alone, as one from
        Redis would.

        Raises:
            KeyError: no such function, or this worker does not serve the queue.
            ValueError: the job runs here already, or no slot is free.
        """
        slots = self.slots if queue_name is None else self.queues[queue_name]
        if job_id in self.claims.held or not slots.free_count:
            raise ValueError(f"job {job_id}: it runs here already, or no slot is free")
        now_ms = timestamp_ms()
        enqueued_ms = now_ms if enqueue_ms is None else enqueue_ms
        claim = Claim(job_id, None, job_try, now_ms, crashes=crashes, in_redis=False, owned=False)
        claim.queue_name = slots.queue_name
        coroutine = self.functions[function]
        claim.enqueue_ms = enqueued_ms
        job = ReadyJob(job_id, function, coroutine, tuple(args), {}, job_try, now_ms, enqueued_ms)
        slots.take(claim)
        loop = asyncio.get_running_loop()
        contain_exits(loop)
        task = loop.create_task(self.runner.run_local(claim, job))
        self.tasks[job_id] = task
        return task

    # Start

    async def main(self) -> None:
        """Run until stopped or, in burst mode, until the queue is empty."""
        self.runner.shutting_down = self._draining = False
        self._hurry.clear()
        # Opened before the first await: a stop that comes during the start must not be undone.
        self.queues.open()
        contain_exits(asyncio.get_running_loop())
        await self._connect()
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._fetching = asyncio.get_running_loop().create_task(self._fetch())
        try:
            # A cancel asks the fetcher to stop rather than cutting it short: the answer to a claim
            # that is under way holds jobs, which must be given back.
            await asyncio.shield(self._fetching)
        except asyncio.CancelledError:
            await self._stop_fetching()
            raise

    async def _fetch(self) -> None:
        """Fill the slots of every queue; if one fetcher fails, all end."""
        if len(self.fetchers) == 1:
            await self.fetcher.run()
            return
        loop = asyncio.get_running_loop()
        fetching = [loop.create_task(fetcher.run()) for fetcher in self.fetchers]
        try:
            await asyncio.gather(*fetching)
        finally:
            for task in fetching:
                task.cancel()
            await asyncio.wait(fetching)

    async def run_check(
        self,
        retry_jobs: bool | None = None,  # noqa: FBT001 - arq's signature
        max_burst_jobs: int | None = None,
    ) -> int:
        """Run until the queue is empty and return how many jobs completed.

        Raises:
            arq.worker.FailedJobs: some failed, or no function here could run them.
        """
        try:
            return await super().run_check(retry_jobs, max_burst_jobs)
        except FailedJobs as failed:
            failed.job_results += self.refusals.passed_over.values()
            raise

    async def _connect(self) -> None:
        logger.info(
            "Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions)
        )
        if self._pool is None and self.redis_settings is not None:
            self._pool = open_pool(self, self.redis_settings)
        settings = self.redis_settings
        for retries_left in range(settings.conn_retries if settings else 0, -1, -1):
            try:
                await self.connection.call(log_redis_info(self.pool, logger.info))
            except LOSS_ERRORS as error:
                if isinstance(error, NoPermissionError) or is_refusal(error):
                    logger.info("redis does not say how it is, which is all the same: %s", error)
                    self.connection.regain()
                    return
                await self._miss(error, retries_left)
            else:
                return

    async def _miss(self, error: BaseException, retries_left: int) -> None:
        """Retry; after the last retry a burst run fails, and a service starts without Redis."""
        if retries_left and self.redis_settings:
            await asyncio.sleep(self.redis_settings.conn_retry_delay)
        elif self.burst:
            raise error
        else:
            logger.warning("starting without redis: %s: %s", type(error).__name__, error)

    # The seams of arq: what its worker does in these methods is a part's duty here

    async def run_job(self, job_id: str, score: int) -> None:  # noqa: ARG002 - arq's signature
        """Run one held job; the body of its task."""
        await self.runner.run(self.claims.held[job_id])

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Start those of the given jobs that are due and free, up to the free slots."""
        await self.fetcher.claim_only(job_ids)

    async def heart_beat(self) -> None:
        """Record the worker's health and enqueue the cron jobs that are due."""
        try:
            await self.connection.watch(super().heart_beat())
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) or is_loss(error):
                raise
            logger.exception("the heart beat failed; the worker goes on")

    async def _do_chores(self) -> None:
        # The heart beat is first, so that a cron job that is due is claimed at once.
        await self.heart_beat()
        if self.allow_abort_jobs:
            await self._cancel_aborted_jobs()

    async def _poll_iteration(self) -> None:
        await self.fetcher.poll()

    async def _cancel_aborted_jobs(self) -> None:
        await self._aborts.cancel_aborted()

    def _jobs_started(self) -> int:
        return self.fetcher.started_count

    # Stop

    def handle_sig(self, signum: "Signals") -> None:
        """Cancel the jobs that run, and stop; cancelled jobs go back without spending a try."""
        self._begin_shutdown()
        tasks = self.tasks
        # A task that is cancelled before its first step takes none: its job would stay held. Left
        # alone, it finds the slots closed.
        held = self.claims.held
        self.tasks = {
            id_: task for id_, task in tasks.items() if id_ not in held or held[id_].started
        }
        super().handle_sig(signum)
        self.tasks = tasks

    def handle_sig_wait_for_completion(self, signum: "Signals") -> None:
        """Claim no more, let jobs finish for `job_completion_wait`, then stop; twice: stop now."""
        if self._draining:
            logger.info("second signal: what still runs is cancelled now")
            self._hurry.set()
            return
        self._draining = True
        super().handle_sig_wait_for_completion(signum)
        self.queues.drain()

    async def _sleep_until_tasks_complete(self) -> None:
        # arq awaits this for at most `job_completion_wait`, then cancels the jobs that are left.
        # Whichever way the wait ends, jobs that are cancelled from here on are handed back.
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            while self.tasks and not self._hurry.is_set():
                await asyncio.wait(
                    {*self.tasks.values(), hurry}, return_when=asyncio.FIRST_COMPLETED
                )
        finally:
            hurry.cancel()
            self._begin_shutdown()

    def _begin_shutdown(self) -> None:
        self.runner.shutting_down = True
        self.queues.close()

    async def _stop_fetching(self) -> None:
        """Let the fetcher come to its end; it does within one answer from Redis."""
        self.queues.close()
        fetching = self._fetching
        if fetching is None:
            return
        done, _ = await asyncio.wait({fetching}, timeout=STOP_PATIENCE_S)
        if not done:
            fetching.cancel()
            await asyncio.wait({fetching})
        if not fetching.cancelled() and (error := fetching.exception()):
            logger.warning("the loop ended with %s: %s", type(error).__name__, error)

    async def close(self) -> None:
        """Let the jobs that run end, record their completions, and close the connections."""
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if not self._pool:
            await self.leases.stop()  # the worker may have run jobs of another source
            return
        await self._stop_fetching()
        await self._settle()
        try:
            await self._delete_health_key()
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)
        finally:
            with suppress(*LOSS_ERRORS):
                await self.pool.aclose(close_connection_pool=True)
            self._pool = None

    async def _settle(self) -> None:
        """Wait for the jobs that run, then until their completions are recorded."""
        await self._wait_for_jobs()
        unrecorded = await self.completer.drain(RECORD_PATIENCE_S)
        if unrecorded:
            logger.error(
                "redis did not take the ends of %d jobs; they will be delivered again", unrecorded
            )
        await self.completer.stop()
        if self.tasks:
            # These waited to be recorded; only their last hook is left.
            await asyncio.wait(self.tasks.values(), timeout=LAST_HOOK_PATIENCE_S)
        await self.leases.stop()

    async def _wait_for_jobs(self) -> None:
        # Jobs that were not cancelled are bounded by their own timeouts.
        patience_s = CANCEL_PATIENCE_S if self.runner.shutting_down else math.inf
        now = asyncio.get_running_loop().time
        end = now() + patience_s
        while running := sum(not claim.recording for claim in self.claims.held.values()):
            if now() > end:
                logger.error("%d jobs ignore their cancellation; their leases will lapse", running)
                return
            await asyncio.wait(self.tasks.values(), timeout=SETTLE_INTERVAL_S)

    async def _delete_health_key(self) -> None:
        with suppress(*LOSS_ERRORS):
            await self.connection.call(self.pool.delete(self.health_check_key))
