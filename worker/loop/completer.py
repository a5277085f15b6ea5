"""Completing: the ends of many jobs go to Redis in one call, and none is lost on the way."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from .connection import LOSS_ERRORS, backoff_s, draw_jitter
from .scripts import FINISH

if TYPE_CHECKING:
    from collections.abc import Callable

    from .claims import Claims
    from .scripts import RunScript

logger = logging.getLogger("arq.worker")

BATCH_MAX: Final = 250
"""Jobs per call: larger ones save nothing and make other clients of Redis wait."""
BATCH_FRACTION: Final = 0.25
"""With a backlog, send once a quarter of the slots have ended ..."""
BATCH_PATIENCE_S: Final = 0.002
"""... or after 2 ms, whichever is first: a call costs as much as a short job."""


@dataclass(frozen=True, slots=True)
class Completion:
    """How one job ended, as `finish.lua` reads it."""

    job_id: str
    tries: int
    kind: Literal["done", "again", "back"]
    """`done`: delete it. `again`: queue it again. `back`: queue it again, and uncount the try."""
    value: bytes | int
    """The result's bytes, or the score at which the job is due again."""
    ttl_ms: int = 0
    """How long the result is kept; 0: forever."""
    keep_ms: int = 0
    """How long the in-progress key outlives the job; 0: not at all."""


class Completer:
    """Sends completions in batches, in order, until Redis has them."""

    def __init__(
        self,
        claims: "Claims",
        run: "RunScript",
        on_recorded: "Callable[[list[Completion]], None]",
        is_enough: "Callable[[int], bool]" = bool,
    ) -> None:
        """Prepare to send.

        Args:
            claims: the claims that the worker holds.
            run: runs a script on the worker's Redis.
            on_recorded: called with each batch that Redis has stored.
            is_enough: whether so many completions are worth a call at once, without waiting for
                more.
        """
        self._claims = claims
        self._run = run
        self._on_recorded = on_recorded
        self._waiting: deque[tuple[Completion, asyncio.Future[None]]] = deque()
        self._is_enough = is_enough
        self._enough = asyncio.Event()
        self._sender: asyncio.Task[None] | None = None

    def add(self, completion: Completion) -> "asyncio.Future[None]":
        """Queue a completion to be sent; the future resolves once Redis has stored it."""
        # Asking for the running loop is a system call before Python 3.12, and this is done per job.
        loop = self._sender.get_loop() if self._sender else asyncio.get_running_loop()
        recorded: asyncio.Future[None] = loop.create_future()
        self._waiting.append((completion, recorded))
        if self._is_enough(len(self._waiting)):
            self._enough.set()
        if self._sender is None:
            # The task starts after everything that is ready to run now, so jobs that end in the
            # same turn of the event loop share a batch.
            self._sender = loop.create_task(self._send())
        return recorded

    @property
    def pending(self) -> int:
        """How many completions Redis does not have yet."""
        return len(self._waiting)

    async def drain(self, patience_s: float) -> int:
        """Wait until all are recorded, at most `patience_s`; return how many are not."""
        if self._sender is not None:
            await asyncio.wait({self._sender}, timeout=patience_s)
        return self.pending

    async def stop(self) -> None:
        """Drop the completions that are not recorded: their jobs will be delivered again."""
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
                    logger.debug("%d completions wait for redis: %s", len(self._waiting), error)
                    await asyncio.sleep(backoff_s(failures, draw_jitter()))
                    failures += 1
                else:
                    failures = 0
        finally:
            self._sender = None

    async def _gather(self) -> None:
        """Wait a moment for more completions, unless there are enough."""
        self._enough.clear()
        if not self._is_enough(len(self._waiting)):
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_PATIENCE_S):
                    await self._enough.wait()

    async def _record(self, batch: "list[tuple[Completion, asyncio.Future[None]]]") -> None:
        args: list[Any] = [self._claims.worker_id]
        for completion, _ in batch:
            args += (
                completion.job_id,
                completion.tries,
                completion.kind,
                completion.value,
                completion.ttl_ms,
                completion.keep_ms,
            )
        refused = await self._run(FINISH, (self._claims.queue_name,), args)
        for job_id in refused:
            logger.warning(
                "job %s ended here, but another worker holds it: left to that one", job_id.decode()
            )
        self._on_recorded([completion for completion, _ in batch])
        for _ in batch:
            _, recorded = self._waiting.popleft()
            if not recorded.done():
                recorded.set_result(None)
