"""Completing: the ends of many jobs go to Redis in one call, and none is lost on the way."""

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from .completions import Completion
from .connection import LOSS_ERRORS, backoff_s, draw_jitter
from .scripts import FINISH

if TYPE_CHECKING:
    from collections.abc import Callable

    from .claims import Claims
    from .scripts import AttemptScript, RunScript

logger = logging.getLogger("arq.worker")

BATCH_MAX: Final = 250
"""Jobs per call: larger ones save nothing and make other clients of Redis wait."""
BATCH_BYTES_MAX: Final = 512 * 1024
"""Bytes of results per call; a larger result goes alone."""
SMALL_BYTES_MAX: Final = 64 * 1024
"""Fewer bytes make no difference to how long a call may take."""
ALONE_FAILURES_MAX: Final = 3
"""How often a completion may fail alone, on a Redis that serves, before it goes without its value;
and how often again before it is given up and its job is left to be delivered again."""
BATCH_FRACTION: Final = 0.25
"""With a backlog, send once a quarter of the slots have ended ..."""
BATCH_PATIENCE_S: Final = 0.002
"""... or after 2 ms, whichever is first: a call costs as much as a short job."""


class Completer:
    """Sends completions in batches until Redis has them.

    One that Redis cannot take does not keep the others from being stored: a batch that fails is
    halved, and what fails alone goes to the end of the line.
    """

    def __init__(
        self,
        claims: "Claims",
        run: "RunScript",
        on_recorded: "Callable[[list[Completion]], None]",
        is_enough: "Callable[[int], bool]" = bool,
        attempt: "AttemptScript | None" = None,
    ) -> None:
        """Prepare to send.

        Args:
            claims: the claims that the worker holds.
            run: runs a script on the worker's Redis, and notes whether Redis answers.
            on_recorded: called with each batch that Redis has stored.
            is_enough: whether so many completions are worth a call at once, without waiting for
                more.
            attempt: like `run`, for so many bytes, and without a note.
        """
        self._claims = claims
        self._run = run
        self._attempt = attempt or (lambda script, keys, args, _size: run(script, keys, args))
        self._on_recorded = on_recorded
        self._waiting: deque[tuple[Completion, asyncio.Future[None]]] = deque()
        self._failures: dict[asyncio.Future[None], int] = {}
        """How often a completion failed alone while Redis served."""
        self._batch_max = BATCH_MAX
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
        self._failures.clear()
        self._sender = None

    async def _send(self) -> None:
        failures = 0
        try:
            while self._waiting:
                await self._gather()
                completions, keys, args, size = self._next_batch()
                try:
                    await self._record(completions, keys, args, size)
                except Exception as error:  # noqa: BLE001 - a value that cannot be sent, too
                    failures = await self._after_failure(len(completions), error, failures)
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

    def _next_batch(self) -> tuple[list[Completion], list[str], list[Any], int]:
        """Return the next completions, what sends them (keys, arguments), and their values' size.

        A value that is large alone is a batch of its own.
        """
        batch: list[Completion] = []
        numbers: dict[str, int] = {}
        args: list[Any] = [self._claims.worker_id]
        size = 0
        for completion, _ in islice(self._waiting, self._batch_max):
            value = completion.value
            if type(value) is bytes:
                if batch and size + len(value) > BATCH_BYTES_MAX:
                    break
                size += len(value)
            batch.append(completion)
            args += (
                numbers.setdefault(completion.queue_name, len(numbers) + 1),
                completion.job_id,
                completion.tries,
                completion.kind,
                value,
                completion.ttl_ms,
                completion.keep_ms,
            )
        return batch, list(numbers), args, size

    async def _record(
        self, batch: list[Completion], keys: list[str], args: list[Any], size: int
    ) -> None:
        patience = size if size > SMALL_BYTES_MAX else 0
        refused = await self._attempt(FINISH, keys, args, patience)
        for job_id in refused:
            logger.warning(
                "job %s ended here, but another worker holds it: left to that one", job_id.decode()
            )
        self._batch_max = min(2 * self._batch_max, BATCH_MAX)
        self._on_recorded(batch)
        for _ in batch:
            _, recorded = self._waiting.popleft()
            if not recorded.done():
                recorded.set_result(None)
            if self._failures:
                self._failures.pop(recorded, None)

    # What fails together is tried alone

    async def _after_failure(self, count: int, error: Exception, failures: int) -> int:
        """Halve the batch if it is at fault, or wait if Redis is; return the failures in a row."""
        self._batch_max = max(1, count // 2)
        if not await self._redis_serves():
            logger.debug("%d completions wait for redis: %s", len(self._waiting), error)
            await asyncio.sleep(backoff_s(failures, draw_jitter()))
            return failures + 1
        if count == 1:
            self._note_alone(error)
        return 0

    async def _redis_serves(self) -> bool:
        """Return whether Redis takes an empty batch; it is noted whether Redis answers."""
        try:
            await self._run(FINISH, (), (self._claims.worker_id,))
        except LOSS_ERRORS:
            return False
        return True

    def _note_alone(self, error: Exception) -> None:
        """Let the first, which failed alone, wait behind the others, and then go without value."""
        completion, recorded = self._waiting.popleft()
        failures = self._failures.pop(recorded, 0) + 1
        if failures >= 2 * ALONE_FAILURES_MAX:
            logger.error(
                "job %s: its end cannot be stored, it will be delivered again: %s",
                *(completion.job_id, error),
            )
            if not recorded.done():
                recorded.set_result(None)
            return
        if failures == ALONE_FAILURES_MAX and completion.kind == "done":
            logger.error(
                "job %s: its result cannot be stored, it ends without: %s",
                *(completion.job_id, error),
            )
            completion = replace(completion, value=b"")
        self._failures[recorded] = failures
        self._waiting.append((completion, recorded))
