"""A batch as its caller holds it: status, the answer of the job that follows, cancel."""

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .._decisions import Cancel
from .._errors import DoorClosedError, JobNotFoundError, ResultTimeoutError
from .._wire import abort

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession

    from .answers import Answer
    from .batch_sql import BatchStatus, BatchTable
    from .handle import Handle

RESULT_TIMEOUT_S: Final = 60.0
CANCEL_TIMEOUT_S: Final = 10.0
LOOK_AGAIN_FIRST_S: Final = 0.05
LOOK_AGAIN_MAX_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class BatchFollower:
    """Reads batches, and cancels them, for the handles of one client."""

    table: "BatchTable"
    sessions: "Callable[[], AsyncSession] | None"
    redis: "Redis | None"
    queue_name: str
    handle: "Callable[[UUID], Handle]"
    """Given a job's id, returns its handle."""

    async def status(self, batch_id: "UUID") -> "BatchStatus":
        """Return how far a batch is; see `Batch.status`."""
        async with self.session() as session:
            status = await session.run_sync(self.table.status, batch_id)
        if status is None:
            raise JobNotFoundError(
                f"there is no batch {batch_id}: check the id, and that the transaction that "
                "opened it was committed"
            )
        return status

    async def cancel_some(self, batch_id: "UUID", reason: str) -> int:
        """Cancel some members in a transaction, and return how many."""
        async with self.session() as session, session.begin():
            ids = await session.run_sync(self.table.cancel, batch_id, reason)
        if self.redis is not None:
            # Stops those that run: it saves work, and is not needed.
            with contextlib.suppress(Exception):
                await abort(self.redis, ids, self.queue_name)
        return len(ids)

    def session(self) -> "AsyncSession":
        """Return a session of the client's own.

        Raises:
            DoorClosedError: the client has none.
        """
        if self.sessions is None:
            raise DoorClosedError("batches are in PostgreSQL: make the Client with `sessions`")
        return self.sessions()


@dataclass(frozen=True, slots=True)
class Batch:
    """One batch. It holds no connection; keep it, pass it on, or make it again from the id."""

    id: "UUID"
    created: bool | None = None
    """Whether this call opened it. False: one of the same key and members was opened before. None:
    the handle was made from an id."""
    jobs: "Sequence[Handle]" = ()
    """Its members in order, where this call opened it."""
    _follower: BatchFollower = field(repr=False, compare=False, kw_only=True)

    async def status(self) -> "BatchStatus":
        """Return how far it is: its state, and its members by theirs.

        Raises:
            JobNotFoundError: there is no such batch.
            DoorClosedError: the client has no `sessions`.
        """
        return await self._follower.status(self.id)

    async def result(self, timeout: float = RESULT_TIMEOUT_S) -> "Answer":  # noqa: ASYNC109 - as a job's
        """Wait until it has fired, and return the answer of the job that follows.

        Args:
            timeout: seconds.

        Returns:
            That job's answer, None if no job follows; a `Cancel` if the batch was cancelled.

        Raises:
            ResultTimeoutError: it took longer; the batch goes on.
            JobDeadError: the job that follows failed for good.
            JobNotFoundError, DoorClosedError: see `status`.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        pause_s = LOOK_AGAIN_FIRST_S
        while (status := await self.status()).state in ("open", "held"):
            if asyncio.get_running_loop().time() + pause_s > deadline:
                raise ResultTimeoutError(
                    f"batch {self.id} has {status.queued} jobs to do after {timeout:g} s; it goes "
                    "on: ask again later, or look at its status()"
                )
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, LOOK_AGAIN_MAX_S)
        if status.state == "cancelled":
            return Cancel("the batch was cancelled")
        if status.then_id is None:
            return None
        left_s = max(0.0, deadline - asyncio.get_running_loop().time())
        return await self._follower.handle(status.then_id).result(left_s)

    async def cancel(
        self,
        reason: str = "cancelled by its caller",
        timeout: float = CANCEL_TIMEOUT_S,  # noqa: ASYNC109 - as a job's
    ) -> "BatchStatus":
        """Cancel every member that has not taken effect, and never let the batch fire.

        One that has fired stays fired. A member that ends at this moment ends as it will: it is
        waited for, `timeout` seconds at most.

        Returns:
            How far the batch was then; no member is left where `queued` is 0.

        Raises:
            JobNotFoundError, DoorClosedError: see `status`.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        while True:
            while await self._follower.cancel_some(self.id, reason):
                pass
            status = await self.status()
            if not status.queued or asyncio.get_running_loop().time() > deadline:
                return status
            await asyncio.sleep(LOOK_AGAIN_FIRST_S)
