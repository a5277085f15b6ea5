"""The worker: a drop-in `arq.worker.Worker` that claims in batches and outlives its servers.

This file is what its owner calls: start, stop, and the seams for what stands around it. Finding
jobs is `fetcher.py`, running one is `runner.py`, what Redis does in each step is in `lua/`.
"""

import asyncio
import inspect
import logging
import math
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import arq.worker as arq_worker
from arq.connections import log_redis_info

from .connection import LOSS_ERRORS
from .eventloop import prefer_uvloop
from .fetcher import JobLoop

if TYPE_CHECKING:
    from signal import Signals

logger = logging.getLogger("arq.worker")

STOP_PATIENCE_S: Final = 5.0
"""How long a stop waits for a claim that is under way, so that it can be handed back."""
CANCEL_PATIENCE_S: Final = 10.0
"""How long a shutdown waits for cancelled jobs to unwind; a commit may be under way."""
SETTLE_LOOK_S: Final = 0.05
"""How often a shutdown looks whether the jobs that still run are down to none."""
RECORD_PATIENCE_S: Final = 5.0
"""How long a shutdown waits for Redis to take the ends of jobs."""
LAST_HOOK_PATIENCE_S: Final = 1.0
"""How long a shutdown waits for `after_job_end` of jobs whose end it could not record."""


class Worker(JobLoop):
    """A drop-in `arq.worker.Worker`: the same constructor, hooks, keys and results.

    docs/loop.md lists every difference.
    """

    # arq picks a worker's options out of a settings class by this signature.
    __signature__ = inspect.signature(arq_worker.Worker)

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - arq's thirty options
        prefer_uvloop()
        super().__init__(*args, **kwargs)
        self._draining = False
        self._hurry = asyncio.Event()
        self._work_task: asyncio.Task[None] | None = None

    @property
    def redis_available(self) -> bool:
        """Whether Redis answers; `connection` has the rest: since when, and whom to tell."""
        return self.connection.available

    # Start

    async def main(self) -> None:
        """Run until stopped or, in burst mode, until the queue is empty."""
        self._shutting_down = self._draining = False
        self._stop.clear()
        self._hurry.clear()
        await self._connect()
        self.ctx["redis"] = self.pool
        if self.on_startup:
            await self.on_startup(self.ctx)
        self._next_poll_at = 0.0
        self._awaits_ring.set()
        self._work_task = asyncio.get_running_loop().create_task(self._work())
        try:
            # A cancel asks the loop to stop rather than cutting it short: the answer to a claim
            # that is under way holds jobs, which must be handed back.
            await asyncio.shield(self._work_task)
        except asyncio.CancelledError:
            await self._stop_working()
            raise

    async def _connect(self) -> None:
        logger.info(
            "Starting worker for %d functions: %s", len(self.functions), ", ".join(self.functions)
        )
        if self._pool is None and self.redis_settings is not None:
            self._pool = self._open_pool(self.redis_settings)
        settings = self.redis_settings
        for retries_left in range(settings.conn_retries if settings else 0, -1, -1):
            try:
                await self.connection.call(log_redis_info(self.pool, logger.info))
            except LOSS_ERRORS as error:
                await self._miss(error, retries_left)
            else:
                return

    async def _miss(self, error: BaseException, retries_left: int) -> None:
        """A burst run without Redis is a failure; a service starts, and waits for it."""
        if retries_left and self.redis_settings:
            await asyncio.sleep(self.redis_settings.conn_retry_delay)
        elif self.burst:
            raise error
        else:
            logger.warning("starting without redis: %s: %s", type(error).__name__, error)

    # Stop

    def handle_sig(self, signum: "Signals") -> None:
        """Cancel what runs and stop; cancelled jobs go back without spending a try."""
        self._begin_shutdown()
        super().handle_sig(signum)

    def handle_sig_wait_for_completion(self, signum: "Signals") -> None:
        """Claim no more, let jobs finish for `job_completion_wait`, then stop; twice: stop now."""
        if self._draining:
            logger.info("second signal: what still runs is cancelled now")
            self._hurry.set()
            return
        self._draining = True
        self._awaits_ring.clear()  # from now on, rings are for other workers
        super().handle_sig_wait_for_completion(signum)

    async def _sleep_until_tasks_complete(self) -> None:
        # arq awaits this for at most `job_completion_wait`, then cancels what is left. Whichever
        # way the wait ends, what is cancelled from here on is cut short by us.
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
        self._shutting_down = True
        self._stop.set()
        self._wake.set()

    async def _stop_working(self) -> None:
        """Let the loop come to its end; it does within one answer from Redis."""
        self._stop.set()
        self._wake.set()
        work = self._work_task
        if work is None:
            return
        done, _ = await asyncio.wait({work}, timeout=STOP_PATIENCE_S)
        if not done:
            work.cancel()
            await asyncio.wait({work})
        if not work.cancelled() and (error := work.exception()):
            logger.warning("the loop ended with %s: %s", type(error).__name__, error)

    async def close(self) -> None:
        """Let what runs come to its end, tell Redis, and close the connections."""
        if not self._handle_signals:
            self.handle_sig(signal.SIGUSR1)
        if not self._pool:
            await self._leases.stop()  # it may have run jobs of another source
            return
        await self._stop_working()
        await self._settle()
        try:
            await self._take_down_health_key()
            if self.on_shutdown:
                await self.on_shutdown(self.ctx)
        finally:
            with suppress(*LOSS_ERRORS):
                await self.pool.aclose(close_connection_pool=True)
            self._pool = None

    async def _settle(self) -> None:
        """Wait for the jobs that run, then for the record of those that ran."""
        await self._wait_for_jobs()
        unrecorded = await self._completer.drain(RECORD_PATIENCE_S)
        if unrecorded:
            logger.error(
                "redis did not take the ends of %d jobs; they will be delivered again", unrecorded
            )
        await self._completer.stop()
        if self.tasks:
            # They waited for the record; what is left of them is the last hook.
            await asyncio.wait(self.tasks.values(), timeout=LAST_HOOK_PATIENCE_S)
        await self._leases.stop()

    async def _wait_for_jobs(self) -> None:
        # Jobs that were not cancelled are bounded by their own timeouts.
        patience_s = CANCEL_PATIENCE_S if self._shutting_down else math.inf
        end = self._now() + patience_s
        while running := sum(not claim.recording for claim in self._held.values()):
            if self._now() > end:
                logger.error("%d jobs ignore their cancellation; their leases will lapse", running)
                return
            await asyncio.wait(self.tasks.values(), timeout=SETTLE_LOOK_S)

    async def _take_down_health_key(self) -> None:
        with suppress(*LOSS_ERRORS):
            await self.connection.call(self.pool.delete(self.health_check_key))
