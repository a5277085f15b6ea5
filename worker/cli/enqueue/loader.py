"""From lines to accepted jobs: in batches, each in a transaction of its own."""

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from db.enqueue import Candidate, Verdict, accept_many
from db.errors import Trouble, diagnose
from jobs._queue import DEFAULT
from jobs._wire import QueuedJob, milliseconds, put
from worker.cli.enqueue.lines import BadLine, JobLine, Line, parse_line
from worker.errors import TellerError

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.cli.enqueue.keys import Keys

BATCH_LINES_MAX: Final = 1_000
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
BATCH_TRIES_MAX: Final = 8
RETRY_BASE_S: Final = 0.1
SEND_TIMEOUT_S: Final = 5.0

_WORTH_A_RETRY: Final = frozenset(
    {Trouble.CONFLICT, Trouble.LOCK_TIMEOUT, Trouble.CONNECTION, Trouble.SERVER_RESOURCES}
)


class LoadingStoppedError(TellerError):
    """The database could not be reached for too long."""


@dataclass(slots=True)
class Totals:
    """How many lines were read so far, and what became of them."""

    lines: int = 0
    bytes_read: int = 0
    created: int = 0
    duplicates: int = 0
    """Accepted before, by this file or another with the same keys."""
    bad: int = 0


@dataclass(slots=True)
class _Batch:
    jobs: list[JobLine] = field(default_factory=list)
    bad: list[BadLine] = field(default_factory=list)
    lines: int = 0
    bytes_read: int = 0
    first_line: int = 0


class Loader:
    """Stores the jobs of lines in PostgreSQL, and sends the new ones to Redis."""

    def __init__(
        self,
        sessions: "async_sessionmaker[AsyncSession]",
        redis: "Redis",
        queue_name: str,
        *,
        on_bad: Callable[[BadLine], None],
        on_progress: Callable[[Totals], None],
    ) -> None:
        self._sessions = sessions
        self._redis = redis
        self._queue_name = queue_name
        self._on_bad = on_bad
        self._on_progress = on_progress

    async def load(self, lines: Iterator[Line], keys: "Keys") -> Totals:
        """Load everything, reading one batch while the one before it is being accepted.

        Raises:
            LoadingStoppedError: what was accepted stays; running the file again is safe.
        """
        totals = Totals()
        batch = await asyncio.to_thread(_next_batch, lines, keys)
        while batch.lines:
            ahead = asyncio.create_task(asyncio.to_thread(_next_batch, lines, keys))
            try:
                await self._take(batch, totals)
            finally:
                batch = await ahead
            self._on_progress(totals)
        return totals

    async def _take(self, batch: _Batch, totals: Totals) -> None:
        verdicts = await self._accept([job.candidate for job in batch.jobs], batch.first_line)
        bad = list(batch.bad)
        created: list[QueuedJob] = []
        for job, verdict in zip(batch.jobs, verdicts, strict=True):
            if verdict.id is None:
                bad.append(BadLine(job.line, f"{verdict.message}: {verdict.hint}"))
            elif verdict.created:
                created.append(_queued_job(verdict, job.candidate))
        for one in sorted(bad, key=lambda one: one.line.number):
            self._on_bad(one)
        totals.lines += batch.lines
        totals.bytes_read += batch.bytes_read
        totals.created += len(created)
        totals.duplicates += len(verdicts) - len(created) - (len(bad) - len(batch.bad))
        totals.bad += len(bad)
        await self._send(created)

    async def _accept(self, candidates: Sequence[Candidate], first_line: int) -> list[Verdict]:
        """Accept a batch; try again after a transient error: the keys make that safe."""
        if not candidates:
            return []
        for tries in range(1, BATCH_TRIES_MAX + 1):
            try:
                async with self._sessions() as session, session.begin():
                    return await accept_many(session, candidates)
            except Exception as error:
                trouble = diagnose(error).trouble
                if trouble not in _WORTH_A_RETRY:
                    raise
                if tries == BATCH_TRIES_MAX:
                    raise LoadingStoppedError(
                        f"stopped before line {first_line} ({trouble.value}): run the same command "
                        "again when the database is back; nothing is enqueued twice"
                    ) from error
                await asyncio.sleep(RETRY_BASE_S * 2**tries * random.random())  # noqa: S311 - jitter
        raise AssertionError("unreachable: the last try returns or raises")

    async def _send(self, jobs: Sequence[QueuedJob]) -> None:
        if jobs:
            try:
                async with asyncio.timeout(SEND_TIMEOUT_S):
                    await put(self._redis, jobs, self._queue_name)
            except Exception:  # noqa: BLE001, S110 - the relay sends what this did not
                pass


def _next_batch(lines: Iterator[Line], keys: "Keys") -> _Batch:
    batch = _Batch()
    for line in lines:
        batch.first_line = batch.first_line or line.number
        batch.lines += 1
        batch.bytes_read += line.bytes_read
        match parse_line(line, keys):
            case JobLine() as job:
                batch.jobs.append(job)
            case BadLine() as bad:
                batch.bad.append(bad)
            case None:
                pass
        if batch.lines == BATCH_LINES_MAX or batch.bytes_read >= BATCH_BYTES_MAX:
            break
    return batch


def _queued_job(verdict: Verdict, candidate: Candidate) -> QueuedJob:
    """Send the id alone: a payload may be personal, and PostgreSQL has it."""
    run_at = candidate.run_at
    return QueuedJob(
        id=str(verdict.id),
        kind=candidate.kind,
        queue=verdict.queue or DEFAULT,
        run_at_ms=None if run_at is None else milliseconds(run_at),
    )
