"""Aborts: clients' requests to end a job, and the removal of those that no job is left for."""

import logging
import time
from itertools import islice
from typing import TYPE_CHECKING, Final

from arq.constants import abort_job_max_age, abort_jobs_ss, job_key_prefix
from arq.utils import timestamp_ms

from .connection import LOSS_ERRORS, is_refusal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import arq.worker
    from arq.connections import ArqRedis

    from .claims import Claims
    from .connection import Connection

logger = logging.getLogger("arq.worker")

ABORT_SKEW_MS: Final = 5_000
"""How far the clock of a client that aborts may be behind that of the client that enqueued."""
ABORTS_READ_MAX: Final = 1_000
"""Jobs whose aborts are read in one call: a longer one would make other clients of Redis wait."""
ORPHAN_CHECK_INTERVAL_S: Final = 10.0
"""How often some aborts are checked for jobs that no longer exist."""


def is_meant_for(aborted_at_ms: float, enqueue_ms: int, now_ms: int) -> bool:
    """Return whether an abort is for the job enqueued then, and not for an earlier of the same id.

    A job from the future has a client whose clock is ahead: it was enqueued by now.

    >>> now = 100_000
    >>> [is_meant_for(90_000, enqueued, now) for enqueued in (90_000, 94_000, 96_000)]
    [True, True, False]
    >>> is_meant_for(96_000, 500_000, now)
    True
    """
    return aborted_at_ms >= min(enqueue_ms, now_ms) - ABORT_SKEW_MS


class Aborts:
    """Cancels the running jobs that clients want to end, and removes requests for no job."""

    def __init__(
        self, worker: "arq.worker.Worker", connection: "Connection", claims: "Claims"
    ) -> None:
        self._worker = worker
        self._connection = connection
        self._claims = claims
        self._next_check_at = 0.0
        self._cursor = 0

    async def cancel_aborted(self) -> None:
        """Cancel the jobs that run here and are to end; their outcome becomes `Aborted`.

        The request stays in Redis until the job's end is stored there.
        """
        redis = self._worker.pool
        try:
            for job_ids in _chunks(self._cancellable()):
                scores = await self._connection.call(redis.zmscore(abort_jobs_ss, job_ids))
                stale = [
                    job_id
                    for job_id, at in zip(job_ids, scores, strict=True)
                    if at is not None and not self._cancel(job_id, at)
                ]
                if stale:
                    await self._connection.call(redis.zrem(abort_jobs_ss, *stale))
            if time.monotonic() >= self._next_check_at:
                self._next_check_at = time.monotonic() + ORPHAN_CHECK_INTERVAL_S
                await self._connection.call(self._remove_orphans(redis))
        except LOSS_ERRORS as error:
            if not is_refusal(error):
                raise
            logger.warning("aborts cannot be read: %s", error)
            if str(error).startswith("WRONGTYPE"):
                # Left as it is, it would refuse every client's abort from now on.
                await self._connection.call(redis.delete(abort_jobs_ss))

    def _cancellable(self) -> list[str]:
        """Return the jobs that run here and have not been cancelled for an abort yet."""
        return [id_ for id_ in self._worker.job_tasks if id_ not in self._worker.aborting_tasks]

    def _cancel(self, job_id: str, at_ms: float) -> bool:
        """Cancel a job, if it is still here; False if the abort was meant for an earlier one."""
        task, claim = self._worker.job_tasks.get(job_id), self._claims.held.get(job_id)
        if task is None or claim is None:
            return True  # it has ended meanwhile, and its end removes the abort
        if not is_meant_for(at_ms, claim.enqueue_ms, timestamp_ms()):
            return False
        self._worker.aborting_tasks.add(job_id)
        task.cancel()
        return True

    async def _remove_orphans(self, redis: "ArqRedis") -> None:
        """Remove old aborts of jobs that do not exist; arq keeps them for a later job of that id.

        An abort of a job that still waits in the queue, however old, is kept. Each check looks at
        the next part of them, so that however many are kept, every one is looked at in time.
        """
        self._cursor, rows = await redis.zscan(abort_jobs_ss, self._cursor, count=ABORTS_READ_MAX)
        now_ms, age_max_ms = timestamp_ms(), abort_job_max_age * 1000
        old = [job_id for job_id, at_ms in rows if not abs(now_ms - at_ms) < age_max_ms]
        if not old:
            return
        async with redis.pipeline(transaction=False) as pipe:
            for job_id in old:
                pipe.exists(job_key_prefix.encode() + job_id)
            bodies_exist = await pipe.execute()
        orphans = [job_id for job_id, exists in zip(old, bodies_exist, strict=True) if not exists]
        if orphans:
            await redis.zrem(abort_jobs_ss, *orphans)


def _chunks(job_ids: "Iterable[str]") -> "Iterator[list[str]]":
    remaining = iter(job_ids)
    while chunk := list(islice(remaining, ABORTS_READ_MAX)):
        yield chunk
