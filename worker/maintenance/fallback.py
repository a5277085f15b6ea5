"""Degraded mode: while Redis takes no jobs, they are claimed from their rows in PostgreSQL.

A claim is a lease in the row, committed before the job runs and renewed while it runs
(`db/leases.py`). So delays, order and single running hold as they do with Redis, and a worker that
dies leaves a job that is due again, and known as one under which a process died.

Redis may be away, or answer and take no new jobs: because it is full, or this user may not write.
In the second case only jobs that Redis never had are claimed, since it may give out the others.
"""

import asyncio
import time
from contextlib import suppress
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from db.leases import Leased, Leases, Release
from jobs._wire import job_id_of
from worker.execution import serializer as wire
from worker.loop.outcomes import Completed, HandBack, RetryLater

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping
    from uuid import UUID

    from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

    from worker.execution.arq_adapter import TellerWorker
    from worker.monitoring.events import Events

LEASE: Final = timedelta(seconds=20)
"""The jobs of a worker that died run elsewhere after this time."""
RENEW_INTERVAL_S: Final = 4.0
CHECK_PAUSE_S: Final = 0.2
"""Between two looks at the connection to Redis, while it is there."""
IDLE_PAUSE_S: Final = 0.25
"""Between two looks for due jobs, where the last one found fewer than there was room for."""
BUSY_PAUSE_S: Final = 0.05
"""How long to wait for a slot that becomes free before the slots are looked at again."""
REFILL_PATIENCE_S: Final = 0.005
"""After a slot has become free, for others to follow: a claim costs as much as a short job."""
ALONE_WAIT_S: Final = 10.0
"""How long no job is claimed so that a suspect may run alone; then the others go on."""
SUSPECT_INTERVAL_S: Final = 5.0
"""Between two times that a busy worker makes room for a suspect."""
UNDECIDED_RETRY: Final = timedelta(seconds=2)
"""When a job is due again whose run ended without a word about it."""
RETURN_CHECKED_S: Final = 30.0
"""For how long after Redis is back its jobs are looked up: another worker may still run them.

Longer than workers take to notice the return, and than a lease that nobody renews.
"""
STOP_TIMEOUT_S: Final = 2.0


class Source(Enum):
    """Where this worker's jobs come from."""

    REDIS = "redis"
    UNSENT = "redis, and what Redis does not take"
    RECORD = "the record"


class Fallback:
    """Claims jobs for one process while Redis takes none: a background duty."""

    name = "fallback"
    step_timeout_s = 15.0

    def __init__(  # noqa: PLR0913 - what it looks at, each by name
        self,
        worker: "TellerWorker",
        sessions: "async_sessionmaker[AsyncSession]",
        events: "Events",
        queues: "Mapping[str, str]",
        *,
        redis_refuses: "Callable[[], bool]" = lambda: False,
        paused_kinds: "Callable[[], Collection[str]]" = frozenset,
    ) -> None:
        """Claim for `worker`.

        Args:
            worker: whose slots are filled.
            sessions: for the leases.
            events: where a change of mode is reported.
            queues: the names of those that the worker serves, by their keys in Redis: jobs of
                others are left alone.
            redis_refuses: returns whether Redis takes no new jobs, though it may answer.
            paused_kinds: returns the kinds whose jobs are left alone.
        """
        self._worker = worker
        self._sessions = sessions
        self._events = events
        self._slots = {name: worker.queues[key] for key, name in queues.items()}
        self._redis_refuses = redis_refuses
        self._paused_kinds = paused_kinds
        self._source = Source.REDIS
        self._running_leased = True
        self._held: dict[UUID, int] = {}
        """What this worker has leased, and the number of crashes each came with."""
        self._ended: list[Release] = []
        self._slot_free = asyncio.Event()
        self._renew_at = 0.0
        self._suspect_at = 0.0
        self._drained_by: float | None = None
        self._checked_until = 0.0
        connection = worker.connection
        connection.on_lost.append(self._slot_free.set)
        connection.on_back.append(self._check_for_a_while)

    async def step(self) -> float:
        """Fill the free slots with due jobs if Redis gives none; return the pause in seconds."""
        self._choose_source()
        if not self._running_leased:
            await self._lease_running()
        await self._release_ended()
        await self._renew()
        if self._source is Source.REDIS:
            await self._rest(CHECK_PAUSE_S)
        elif await self._fill_slots():
            await self._rest(BUSY_PAUSE_S)
            await asyncio.sleep(REFILL_PATIENCE_S)
        else:
            await asyncio.sleep(IDLE_PAUSE_S)
        return 0.0

    async def stop(self) -> None:
        """End the leases of jobs whose runs were cut short: others need not wait for them."""
        with suppress(Exception):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await self._release_ended()

    async def leased_elsewhere(self, job_id: str) -> timedelta | None:
        """Return for how long another worker still runs a job from the record that Redis gave out.

        None where none does. It is looked up for a while after Redis is back, and not later.
        """
        if time.monotonic() >= self._checked_until or not self._worker.connection.available:
            return None
        async with self._sessions() as session:
            return await Leases(session, self._worker.worker_id).left_elsewhere(job_id_of(job_id))

    # Which source

    def _choose_source(self) -> None:
        """Note where jobs come from, and emit an event where that has changed."""
        if not self._worker.connection.available:
            source = Source.RECORD
        else:
            source = Source.UNSENT if self._redis_refuses() else Source.REDIS
        if source is self._source:
            return
        self._source = source
        self._running_leased = source is not Source.RECORD
        event = {Source.RECORD: "redis.lost", Source.UNSENT: "redis.refuses"}
        self._events.emit(event.get(source, "redis.back"))

    def _check_for_a_while(self) -> None:
        self._checked_until = time.monotonic() + RETURN_CHECKED_S

    async def _lease_running(self) -> None:
        """Lease what this worker runs already, before any worker claims from the record."""
        running = [
            (job_id_of(job_id), task)
            for job_id, task in self._worker.tasks.items()
            if job_id_of(job_id) not in self._held
        ]
        if running:
            async with self._sessions() as session, session.begin():
                leases = Leases(session, self._worker.worker_id)
                await leases.lease_running([job_id for job_id, _ in running], LEASE)
        for job_id, task in running:
            self._hold(job_id, task, crashes=0)
        self._running_leased = True

    # Leases

    def _hold(self, job_id: "UUID", task: "asyncio.Task[Any]", *, crashes: int) -> None:
        self._held[job_id] = crashes
        task.add_done_callback(lambda ended: self._note_end(job_id, ended))

    def _note_end(self, job_id: "UUID", task: "asyncio.Task[Any]") -> None:
        crashes = self._held.pop(job_id, 0)
        self._ended.append(release_of(job_id, task, crashes))
        self._slot_free.set()

    async def _release_ended(self) -> None:
        """End the leases of runs that are over; a job that is final by now is left as it is."""
        if not self._ended:
            return
        ended, self._ended = self._ended, []
        try:
            async with self._sessions() as session, session.begin():
                await Leases(session, self._worker.worker_id).release(ended)
        except BaseException:
            self._ended += ended
            raise

    async def _renew(self) -> None:
        if not self._held or time.monotonic() < self._renew_at:
            return
        async with self._sessions() as session, session.begin():
            await Leases(session, self._worker.worker_id).renew(list(self._held), LEASE)
        self._renew_at = time.monotonic() + RENEW_INTERVAL_S

    # Slots

    async def _rest(self, pause_s: float) -> None:
        """Wait until a slot is free or Redis is lost, at most `pause_s`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._slot_free.wait()
        self._slot_free.clear()

    async def _fill_slots(self) -> bool:
        """Start due jobs; return whether there may be more than there is room for."""
        if not self._worker.allow_pick_jobs:
            return False
        if any(claim.crashes for claim in self._worker.claims.held.values()):
            return True  # a suspect runs, alone
        if await self._makes_room():
            return True
        if not self._is_busy() and await self._start_suspect():
            return True
        more = [await self._fill(queue) for queue in self._open_queues]
        return any(more)

    @property
    def _open_queues(self) -> list[str]:
        return [name for name, slots in self._slots.items() if not slots.paused]

    async def _fill(self, queue: str) -> bool:
        """Start due jobs of one queue; return whether there may be more than there is room for."""
        free = self._slots[queue].free_count
        return free < 1 or await self._start(queue, free) == free

    def _is_busy(self) -> bool:
        """Return whether jobs run here; the ends of others may still wait for Redis."""
        return any(not claim.recording for claim in self._worker.claims.held.values())

    async def _makes_room(self) -> bool:
        """Return whether a suspect waits for the jobs that run here, which no others then join."""
        now = time.monotonic()
        if self._drained_by is None and self._is_busy() and now >= self._suspect_at:
            self._suspect_at = now + SUSPECT_INTERVAL_S
            async with self._sessions() as session:
                if await Leases(session, self._worker.worker_id).suspect_is_due(
                    self._open_queues, without=self._paused_kinds()
                ):
                    self._drained_by = now + ALONE_WAIT_S
        if self._drained_by is None:
            return False
        if self._is_busy() and now < self._drained_by:
            return True
        self._drained_by = None
        self._suspect_at = now + SUSPECT_INTERVAL_S
        return False

    async def _start(self, queue: str, limit: int) -> int:
        """Lease up to `limit` due jobs of a queue and start them; return how many there were."""
        unsent = self._source is Source.UNSENT
        async with self._sessions() as session, session.begin():
            leases = Leases(session, self._worker.worker_id)
            leased = await leases.claim(
                queue, limit, LEASE, unsent=unsent, without=self._paused_kinds()
            )
        self._run(leased)
        return len(leased)

    async def _start_suspect(self) -> bool:
        """Lease and start a due job under which a process died, if there is one."""
        unsent = self._source is Source.UNSENT
        async with self._sessions() as session, session.begin():
            leases = Leases(session, self._worker.worker_id)
            leased = await leases.claim_suspect(
                self._open_queues, LEASE, unsent=unsent, without=self._paused_kinds()
            )
        self._run(leased)
        return bool(leased)

    def _run(self, leased: "Iterable[Leased]") -> None:
        for job in leased:
            running = self._worker.tasks.get(job.delivery_id)
            if running is not None:  # Redis gave it out before it was lost
                self._hold(job.id, running, crashes=job.crashes)
            elif (
                self._slots[job.queue].free_count < 1
            ):  # what Redis gives out has taken it meanwhile
                self._ended.append(Release(job.id, timedelta(), job.crashes))
            else:
                task = self._worker.run_local(
                    job.delivery_id,
                    wire.FROM_RECORD,
                    [job.kind],
                    job_try=job.attempts + 1,
                    crashes=job.crashes,
                    queue_name=self._slots[job.queue].queue_name,
                )
                self._hold(job.id, task, crashes=job.crashes)


def release_of(job_id: "UUID", task: "asyncio.Task[Any]", crashes: int) -> Release:
    """Return what the end of a run means for its lease.

    Args:
        job_id: the job's row.
        task: has ended; its result is the loop's outcome, or None where Redis gave the job out.
        crashes: under how many leases before this one a process died.
    """
    if task.cancelled() or task.exception() is not None:
        return Release(job_id, UNDECIDED_RETRY)
    match task.result():
        case RetryLater(defer_ms):
            return Release(job_id, timedelta(milliseconds=defer_ms or 0))
        case HandBack():
            # Cut short by the worker's stop, or a suspect that could not run alone here.
            return Release(job_id, UNDECIDED_RETRY if crashes else timedelta(), crashes)
        case None | Completed():
            return Release(job_id)
        case _:
            return Release(job_id, UNDECIDED_RETRY)
