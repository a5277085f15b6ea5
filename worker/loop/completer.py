"""Finishing: the ends of many jobs travel to Redis together, and none is dropped on the way."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from .connection import LOSS_ERRORS, backoff_s, jitter
from .scripts import FINISH

if TYPE_CHECKING:
    from collections.abc import Callable

    from .claims import Holdings
    from .scripts import RunScript

logger = logging.getLogger("arq.worker")

BATCH_MAX: Final = 250
"""Jobs per call: larger ones save nothing and make other clients of Redis wait."""
BATCH_PART: Final = 4
"""While more is due than fits, ends are recorded, and free slots filled, a quarter at a time ..."""
BATCH_PATIENCE_S: Final = 0.002
"""... or whatever there is after this long: every call to Redis costs as much as a short job."""


@dataclass(frozen=True, slots=True)
class Finish:
    """How one job ended, as `finish.lua` reads it."""

    job_id: str
    tries: int
    kind: Literal["done", "again", "back"]
    value: bytes | int
    """The result's bytes, or the score at which the job is due again."""
    ttl_ms: int = 0
    keep_ms: int = 0


class Finisher:
    """Sends finishes in batches, in order, until Redis has them."""

    def __init__(
        self,
        holdings: "Holdings",
        run: "RunScript",
        on_recorded: "Callable[[list[Finish]], None]",
        is_enough: "Callable[[int], bool]" = bool,
    ) -> None:
        """Say where to, and when.

        Args:
            holdings: what the worker holds.
            run: runs a script on the worker's Redis.
            on_recorded: hears which ends Redis has.
            is_enough: whether so many ends are worth a call at once, and not a moment later.
        """
        self._holdings = holdings
        self._run = run
        self._on_recorded = on_recorded
        self._waiting: deque[tuple[Finish, asyncio.Future[None]]] = deque()
        self._is_enough = is_enough
        self._enough = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    def add(self, finish: Finish) -> "asyncio.Future[None]":
        """Take over a job's end; the future resolves when Redis has it."""
        # Asking for the running loop is a system call before Python 3.12, and this is done per job.
        loop = self._sender.get_loop() if self._sender else asyncio.get_running_loop()
        recorded: asyncio.Future[None] = loop.create_future()
        self._waiting.append((finish, recorded))
        if self._is_enough(len(self._waiting)):
            self._enough.set()
        if self._sender is None:
            # It starts after everything that is ready to run now, so jobs that end in the same
            # turn of the event loop share a batch.
            self._sender = loop.create_task(self._send())
        return recorded

    @property
    def pending(self) -> int:
        """How many ends Redis does not have yet."""
        return len(self._waiting)

    async def drain(self, patience_s: float) -> int:
        """Wait until everything is recorded, at most `patience_s`; return how much is not."""
        if self._sender is not None:
            await asyncio.wait({self._sender}, timeout=patience_s)
        return self.pending

    async def stop(self) -> None:
        """Give up on what is not recorded: those jobs will be delivered again."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait({self._sender})
        for _, recorded in self._waiting:
            recorded.cancel()
        self._waiting.clear()
        self._sender = None

    async def _send(self) -> None:
        failures = 0
        try:
            while self._waiting:
                await self._gather()
                batch = [self._waiting[i] for i in range(min(len(self._waiting), BATCH_MAX))]
                try:
                    await self._record(batch)
                except LOSS_ERRORS as error:
                    logger.debug("%d finishes wait for redis: %s", len(self._waiting), error)
                    await asyncio.sleep(backoff_s(failures, jitter()))
                    failures += 1
                else:
                    failures = 0
        finally:
            self._sender = None

    async def _gather(self) -> None:
        """Wait a moment for more ends, unless there are enough."""
        self._enough.clear()
        if not self._is_enough(len(self._waiting)):
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_PATIENCE_S):
                    await self._enough.wait()

    async def _record(self, batch: "list[tuple[Finish, asyncio.Future[None]]]") -> None:
        args: list[Any] = [self._holdings.worker_id]
        for finish, _ in batch:
            args += (
                finish.job_id,
                finish.tries,
                finish.kind,
                finish.value,
                finish.ttl_ms,
                finish.keep_ms,
            )
        refused = await self._run(FINISH, (self._holdings.queue_name,), args)
        for job_id in refused:
            logger.warning(
                "job %s ended here, but somebody else holds it: left to them", job_id.decode()
            )
        self._on_recorded([finish for finish, _ in batch])
        for _ in batch:
            _, recorded = self._waiting.popleft()
            if not recorded.done():
                recorded.set_result(None)
