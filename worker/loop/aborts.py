"""Aborts: clients' requests to end a job, and the removal of those that no job is left for."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from arq.constants import abort_job_max_age, abort_jobs_ss, job_key_prefix
from arq.utils import timestamp_ms

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import arq.worker
    from arq.connections import ArqRedis

    from .claims import Claims
    from .connection import Connection

ABORTS_READ_MAX: Final = 1_000
"""Aborts per read, newest first: older ones wait for the next read, or are for no job at all."""
ORPHAN_CHECK_INTERVAL_S: Final = 10.0
"""How often aborts are checked for jobs that no longer exist."""


@dataclass(frozen=True, slots=True)
class Abort:
    """A client's request to end a job."""

    job_id: str
    at_ms: int


class Aborts:
    """Cancels the running jobs that clients want to end, and removes their requests."""

    def __init__(
        self, worker: "arq.worker.Worker", connection: "Connection", claims: "Claims"
    ) -> None:
        self._worker = worker
        self._connection = connection
        self._claims = claims
        self._next_check_at = 0.0

    async def cancel_aborted(self) -> None:
        """Cancel the jobs that run here and are to end; their outcome becomes `Aborted`."""
        redis = self._worker.pool
        aborts = await self._connection.call(_read(redis))
        if aborts:
            answered = [abort.job_id for abort in aborts if self._answer(abort)]
            await self._connection.call(self._remove(redis, aborts, answered))

    def _answer(self, abort: Abort) -> bool:
        """Cancel the job if it is here and the abort is meant for it; False if it is not here."""
        task = self._worker.job_tasks.get(abort.job_id)
        if task is None:
            return False
        # An abort that is older than the job was meant for an earlier one of the same id.
        if abort.at_ms >= self._claims.held[abort.job_id].enqueue_ms:
            self._worker.aborting_tasks.add(abort.job_id)
            task.cancel()
        return True

    async def _remove(
        self, redis: "ArqRedis", aborts: "Collection[Abort]", answered: "Sequence[str]"
    ) -> None:
        """Remove the aborts that were answered and, at intervals, those whose job is gone."""
        if answered:
            await redis.zrem(abort_jobs_ss, *answered)
        if time.monotonic() >= self._next_check_at:
            self._next_check_at = time.monotonic() + ORPHAN_CHECK_INTERVAL_S
            await _remove_orphans(redis, aborts)


async def _read(redis: "ArqRedis") -> list[Abort]:
    """Return the aborts that wait, newest first."""
    rows = await redis.zrevrange(abort_jobs_ss, 0, ABORTS_READ_MAX - 1, withscores=True)
    return [Abort(job_id.decode(), int(at_ms)) for job_id, at_ms in rows]


async def _remove_orphans(redis: "ArqRedis", aborts: "Collection[Abort]") -> None:
    """Remove old aborts of jobs that do not exist; arq keeps them for a later job of that id.

    An abort of a job that still waits in the queue, however old, is kept.
    """
    oldest_ms = timestamp_ms() - abort_job_max_age * 1000
    old = [abort.job_id for abort in aborts if abort.at_ms < oldest_ms]
    if not old:
        return
    async with redis.pipeline(transaction=False) as pipe:
        for job_id in old:
            pipe.exists(job_key_prefix + job_id)
        bodies_exist = await pipe.execute()
    orphans = [job_id for job_id, exists in zip(old, bodies_exist, strict=True) if not exists]
    if orphans:
        await redis.zrem(abort_jobs_ss, *orphans)
