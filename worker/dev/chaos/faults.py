"""What each kind of fault does: one small function for each."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from redis.asyncio import Redis

from db.dev import terminate_backends
from worker.dev.chaos.plan import Fault, FaultKind
from worker.dev.chaos.retrying import retry_until_up
from worker.dev.chaos.sites import MARK

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from worker.dev.chaos.fleet import Fleet
    from worker.dev.chaos.proxy import CommitProxy
    from worker.dev.servers import PostgresServer, ValkeyServer

WORKER_CONNECTIONS: Final = "teller-worker%"
"""The application name of every worker's connections, as LIKE reads it."""


@dataclass
class Targets:
    """What can be hurt."""

    fleet: "Fleet"
    proxy: "CommitProxy"
    redis_url: str
    engine: "AsyncEngine"
    """A connection of our own, that no fault is aimed at."""
    postgres: "PostgresServer | None" = None
    valkey: "ValkeyServer | None" = None
    injected: Counter[FaultKind] = field(default_factory=Counter)
    postgres_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    redis_turn: asyncio.Lock = field(default_factory=asyncio.Lock)


async def inject(targets: Targets, fault: Fault) -> None:
    """Do one fault, to its end."""
    await INJECTIONS[fault.kind](targets, fault)
    targets.injected[fault.kind] += 1


async def kill_worker(targets: Targets, fault: Fault) -> None:
    """`kill -9` a worker, wherever it stands."""
    await targets.fleet.kill(fault.victim)


async def freeze_worker(targets: Targets, fault: Fault) -> None:
    """Freeze a worker until its leases have lapsed and others run its jobs; then wake it."""
    await targets.fleet.freeze(fault.victim, fault.hold_s)


async def flush_redis(targets: Targets, _fault: Fault) -> None:
    """Make Redis forget every queue, lease and result."""
    async with targets.redis_turn:
        await retry_until_up(lambda: _flush(targets.redis_url))


async def stop_redis(targets: Targets, fault: Fault) -> None:
    """Take Redis away for a while; it comes back with what it had, or empty."""
    valkey = targets.valkey
    if valkey is None:
        raise ValueError("stop-redis needs a Redis of our own")
    async with targets.redis_turn:
        await asyncio.to_thread(valkey.stop if fault.gentle else valkey.kill)
        await asyncio.sleep(fault.hold_s)
        if not fault.gentle:
            await asyncio.to_thread(valkey.wipe)
        await asyncio.to_thread(valkey.start)


async def freeze_redis(targets: Targets, fault: Fault) -> None:
    """Let Redis fall silent for a while: connections stay open, nothing answers."""
    valkey = targets.valkey
    if valkey is None:
        raise ValueError("freeze-redis needs a Redis of our own")
    async with targets.redis_turn:
        valkey.pause()
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            valkey.resume()


async def kill_backends(targets: Targets, _fault: Fault) -> None:
    """Terminate every connection that the workers have, whatever it is doing."""

    async def terminate() -> None:
        async with targets.engine.connect() as connection:
            await terminate_backends(connection, WORKER_CONNECTIONS)

    await retry_until_up(terminate)


async def restart_postgres(targets: Targets, fault: Fault) -> None:
    """Shut PostgreSQL down, or `kill -9` it so that it must recover; then start it again."""
    postgres = targets.postgres
    if postgres is None:
        raise ValueError("restart-postgres needs a PostgreSQL of our own")
    async with targets.postgres_turn:
        await asyncio.to_thread(postgres.stop if fault.gentle else postgres.kill)
        await asyncio.sleep(fault.hold_s)
        await asyncio.to_thread(postgres.start)


async def lost_commit(targets: Targets, fault: Fault) -> None:
    """Lose the reply to the next few COMMITs, and with it the connection."""
    targets.proxy.lose_replies(fault.replies)


INJECTIONS: Final[dict[FaultKind, Callable[[Targets, Fault], Awaitable[None]]]] = {
    FaultKind.KILL_WORKER: kill_worker,
    FaultKind.FLUSH_REDIS: flush_redis,
    FaultKind.STOP_REDIS: stop_redis,
    FaultKind.FREEZE_REDIS: freeze_redis,
    FaultKind.KILL_BACKENDS: kill_backends,
    FaultKind.RESTART_POSTGRES: restart_postgres,
    FaultKind.FREEZE_WORKER: freeze_worker,
    FaultKind.LOST_COMMIT: lost_commit,
}


async def _flush(url: str) -> None:
    redis = Redis.from_url(url)
    try:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.flushdb()
            pipe.set(MARK, 1)  # it stays a Redis that may be flushed
            await pipe.execute()
    finally:
        await redis.aclose()
