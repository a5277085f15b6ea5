"""The worker processes, and the backlog that waits for them. Cheap enough for every few seconds."""

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from uuid import UUID

from sqlalchemy import text

from db.models import NOT_PAUSED

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

SHOWN_MAX: Final = 500
COUNTED_MAX: Final = 100_000
"""Counts stop here: a number this large says all, and a larger one costs more to find."""
QUEUES_SHOWN_MAX: Final = 100
BLOCKED_SHOWN_MAX: Final = 50
"""Pairs of a kind and what blocks it."""
BATCHES_COUNTED_MAX: Final = 1_000
"""Open batches, the oldest first: each costs a look for a dead member."""
ENDPOINTS_SHOWN_MAX: Final = 50

# Every queue that has jobs is found by one look at an index each. A job that runs is still `queued`
# in its row, so the age includes what runs.
QUEUES = text(f"""
    WITH RECURSIVE named AS (
      (SELECT queue FROM jobs WHERE state = 'queued' AND {NOT_PAUSED} ORDER BY queue LIMIT 1)
      UNION ALL
      SELECT (SELECT queue FROM jobs WHERE state = 'queued' AND {NOT_PAUSED} AND queue > named.queue
              ORDER BY queue LIMIT 1)
      FROM named WHERE named.queue IS NOT NULL
    )
    SELECT named.queue,
      (SELECT count(*) FROM (
         SELECT FROM jobs WHERE queue = named.queue AND state = 'queued' AND {NOT_PAUSED}
           AND run_at <= now() LIMIT :counted
       ) AS due) AS runnable,
      (SELECT count(*) FROM (
         SELECT FROM jobs WHERE queue = named.queue AND state = 'queued' AND {NOT_PAUSED}
           AND run_at > now() LIMIT :counted
       ) AS later) AS scheduled,
      greatest(0, extract(epoch FROM now() - (
         SELECT run_at FROM jobs WHERE queue = named.queue AND state = 'queued' AND {NOT_PAUSED}
         ORDER BY run_at, id LIMIT 1
       )))::float8 AS oldest_s,
      greatest(0, (
         SELECT extract(epoch FROM now() - min(greatest(run_at, enqueued_at))) FROM (
           SELECT run_at, enqueued_at FROM jobs
           WHERE queue = named.queue AND state = 'queued' AND dispatched_at IS NULL
             AND {NOT_PAUSED} AND run_at <= now()
           ORDER BY run_at, id LIMIT 100
         ) AS unsent
       ))::float8 AS unsent_s,
      EXISTS (
        SELECT FROM pauses
        WHERE target = 'queue:' || named.queue AND (until IS NULL OR until > now())
      ) AS paused
    FROM named WHERE named.queue IS NOT NULL LIMIT :shown
""")  # noqa: S608 - a condition of our own

DEAD = text("""
    SELECT count(*) FROM (SELECT FROM jobs WHERE state = 'dead' LIMIT :counted) AS dead
""")

BLOCKED = text("""
    SELECT kind, blocked_by, count(*),
           extract(epoch FROM now() - min(blocked_since))::float8
    FROM (
      SELECT kind, blocked_by, blocked_since FROM jobs
      WHERE state = 'queued' AND blocked_by IS NOT NULL LIMIT :counted
    ) AS blocked
    GROUP BY kind, blocked_by ORDER BY count(*) DESC, kind, blocked_by LIMIT :shown
""")

BATCHES = text("""
    SELECT count(*), count(*) FILTER (WHERE is_held),
           coalesce(extract(epoch FROM now() - min(opened_at)), 0)::float8
    FROM (
      SELECT opened_at, on_dead = 'hold' AND EXISTS (
        SELECT FROM jobs WHERE jobs.batch_id = batches.id AND jobs.state = 'dead') AS is_held
      FROM batches WHERE fired_at IS NULL AND cancelled_at IS NULL
      ORDER BY opened_at, id LIMIT :counted
    ) AS unfinished
""")

ENDPOINTS = text("""
    SELECT name, CASE WHEN disabled_at IS NULL THEN 'failing' ELSE 'disabled' END,
           extract(epoch FROM now() - coalesce(disabled_at, failing_since))::float8
    FROM webhook_endpoints
    WHERE disabled_at IS NOT NULL OR failing_since IS NOT NULL ORDER BY name LIMIT :shown
""")

BEAT = text("""
    INSERT INTO workers AS w (id, host, pid, version, kinds, state, mode, jobs_running, queue_key,
                              queues)
    VALUES (:id, :host, :pid, :version, :kinds, :state, :mode, :jobs_running, :queue_key, :queues)
    ON CONFLICT (id) DO UPDATE
    SET seen_at = clock_timestamp(), state = excluded.state, mode = excluded.mode,
        jobs_running = excluded.jobs_running
""")

READINESS = text("""
    SELECT has_table_privilege('jobs', 'SELECT') AND has_table_privilege('jobs', 'INSERT')
             AND has_table_privilege('jobs', 'UPDATE'),
           (SELECT version_num FROM teller_version)
""")

FORGET = text("DELETE FROM workers WHERE seen_at < clock_timestamp() - CAST(:age AS interval)")

FLEET = text("""
    SELECT id, host, pid, version, kinds, state, mode, jobs_running, queue_key, queues, started_at,
           seen_at,
           seen_at < clock_timestamp() - CAST(:silence AS interval) AS silent
    FROM workers ORDER BY seen_at DESC LIMIT :shown
""")


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker process writes about itself."""

    id: UUID
    host: str
    pid: int
    version: str
    kinds: list[str]
    state: str
    mode: str
    jobs_running: int
    queue_key: str
    queues: list[str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A worker process as of its last heartbeat."""

    id: UUID
    host: str
    pid: int
    version: str
    kinds: list[str]
    state: str
    mode: str
    jobs_running: int
    queue_key: str
    queues: list[str]
    started_at: datetime
    seen_at: datetime
    silent: bool
    """Whether it has missed so many heartbeats that it is taken for dead."""

    @property
    def works(self) -> bool:
        """Whether it takes jobs, as far as anyone can know."""
        return self.state == "running" and not self.silent


class Readiness(NamedTuple):
    """Whether the database is one in which a job could run."""

    may_write_jobs: bool
    revision: str
    """Its schema's."""


class Workers:
    """The worker processes as one session sees them."""

    def __init__(self, session: "AsyncSession") -> None:
        self._session = session

    async def beat(self, beat: Beat) -> None:
        """Write a process's row, or refresh it."""
        await self._session.execute(BEAT, asdict(beat))

    async def forget(self, age: timedelta) -> None:
        """Delete the rows of processes that have been silent for so long."""
        await self._session.execute(FORGET, {"age": age})

    async def readiness(self) -> Readiness:
        """Return whether a job could run here."""
        return Readiness(*(await self._session.execute(READINESS)).one())

    async def fleet(self, silence: timedelta) -> list[Seen]:
        """Return the processes, newest heartbeat first.

        Args:
            silence: from which on a process that says it runs is taken for dead.
        """
        rows = await self._session.execute(FLEET, {"silence": silence, "shown": SHOWN_MAX})
        return [Seen(**row._mapping) for row in rows]  # noqa: SLF001 - SQLAlchemy's name


@dataclass(frozen=True, slots=True)
class Blocked:
    """Queued jobs of one kind that wait for something outside them."""

    kind: str
    cause: str
    """`newer_worker`, or `environment:` and a SQLSTATE."""
    jobs: int
    since_s: float
    """How long the first of them has waited, in seconds."""


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    """What waits in one queue, counted up to `COUNTED_MAX`; not for the end of a pause."""

    queue: str
    runnable: int
    scheduled: int
    oldest_runnable_age_s: float
    relay_lag_s: float
    """How long the oldest due job has waited to be sent to Redis."""
    paused: bool
    """Whether it is paused: then its jobs are old for a reason."""


@dataclass(frozen=True, slots=True)
class OpenBatches:
    """Batches that have not ended, counted up to `BATCHES_COUNTED_MAX`."""

    open: int = 0
    held: int = 0
    """Those that a dead member holds: they wait for somebody to retry or to cancel it."""
    oldest_age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class EndpointTrouble:
    """A webhook endpoint that does not hear of ends."""

    endpoint: str
    trouble: str
    """`failing`, and deliveries are tried again; or `disabled`, and there are none."""
    since_s: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits: in all queues together, and in each."""

    runnable: int
    scheduled: int
    dead: int
    oldest_runnable_age_s: float
    relay_lag_s: float
    """How long the oldest due job has waited to be sent to Redis."""
    blocked: tuple[Blocked, ...] = ()
    """The kinds with most blocked jobs, `BLOCKED_SHOWN_MAX` at most."""
    queues: tuple[QueueBacklog, ...] = ()
    """Those that have jobs, `QUEUES_SHOWN_MAX` at most."""
    batches: OpenBatches = OpenBatches()
    endpoints: tuple[EndpointTrouble, ...] = ()
    """Webhook endpoints with a trouble, `ENDPOINTS_SHOWN_MAX` at most."""


async def backlog(session: "AsyncSession") -> Backlog:
    """Return what waits now."""
    counted = {"counted": COUNTED_MAX}
    rows = await session.execute(QUEUES, {**counted, "shown": QUEUES_SHOWN_MAX})
    queues = tuple(QueueBacklog(*row) for row in rows)
    dead: int = await session.scalar(DEAD, counted)
    blocked = await session.execute(BLOCKED, {**counted, "shown": BLOCKED_SHOWN_MAX})
    batches = (await session.execute(BATCHES, {"counted": BATCHES_COUNTED_MAX})).one()
    endpoints = await session.execute(ENDPOINTS, {"shown": ENDPOINTS_SHOWN_MAX})
    going = [one for one in queues if not one.paused]
    return Backlog(
        runnable=min(COUNTED_MAX, sum(one.runnable for one in queues)),
        scheduled=min(COUNTED_MAX, sum(one.scheduled for one in queues)),
        dead=dead,
        oldest_runnable_age_s=max((one.oldest_runnable_age_s for one in going), default=0.0),
        relay_lag_s=max((one.relay_lag_s for one in going), default=0.0),
        blocked=tuple(Blocked(*one) for one in blocked),
        queues=queues,
        batches=OpenBatches(*batches),
        endpoints=tuple(EndpointTrouble(*one) for one in endpoints),
    )
