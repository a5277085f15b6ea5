"""Faults of the two servers: stopped, killed, frozen, emptied."""

import asyncio
from typing import TYPE_CHECKING, Final

from db.dev import terminate_backends
from worker.dev.chaos.faults.kind import Kind
from worker.dev.chaos.retrying import retry_until_up
from worker.dev.chaos.sites import MARK

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from worker.dev.chaos.faults.kind import Fault, Targets

WORKER_CONNECTIONS: Final = "teller-worker%"
"""The application name of every worker's connections, as LIKE reads it."""
FREEZE_S: Final = (2.0, 5.0)
LONG_FREEZE_S: Final = (90.0, 95.0)


async def kill_backends(targets: "Targets", _fault: "Fault") -> None:
    """Terminate every connection that the workers have, whatever it is doing."""

    async def terminate() -> None:
        async with targets.connections.engine.connect() as connection:
            await terminate_backends(connection, WORKER_CONNECTIONS)

    await retry_until_up(terminate)


async def restart_postgres(targets: "Targets", fault: "Fault") -> None:
    """Shut PostgreSQL down, or `kill -9` it so that it must recover; then start it again."""
    postgres = targets.postgres
    if postgres is None:
        raise ValueError("restart-postgres needs a PostgreSQL of our own")
    async with targets.postgres_turn:
        await asyncio.to_thread(postgres.stop if fault.gentle else postgres.kill)
        await asyncio.sleep(fault.hold_s)
        await asyncio.to_thread(postgres.start)


async def freeze_postgres(targets: "Targets", fault: "Fault") -> None:
    """Stop every process of PostgreSQL: connections stay open, nothing answers."""
    postgres = targets.postgres
    if postgres is None:
        raise ValueError("freeze-postgres needs a PostgreSQL of our own")
    async with targets.postgres_turn:
        postgres.pause()
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            postgres.resume()


async def flush_redis(targets: "Targets", _fault: "Fault") -> None:
    """Make Redis forget every queue, lease and result."""
    async with targets.redis_turn:
        await retry_until_up(lambda: _flush(targets.connections.redis))


async def stop_redis(targets: "Targets", fault: "Fault") -> None:
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


async def freeze_redis(targets: "Targets", fault: "Fault") -> None:
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


async def _flush(redis: "Redis") -> None:
    async with redis.pipeline(transaction=True) as pipe:
        pipe.flushdb()
        pipe.set(MARK, 1)  # it stays a Redis that may be flushed
        await pipe.execute()


KINDS: Final = (
    Kind(
        "kill-backends",
        "`pg_terminate_backend` on every connection of every worker",
        kill_backends,
        weight=6,
    ),
    Kind(
        "restart-postgres",
        "a clean restart, or `kill -9` and crash recovery",
        restart_postgres,
        weight=2,
        hold_s=(0.0, 1.0),
        is_outage=True,
        needs_our_servers=True,
    ),
    Kind(
        "freeze-postgres",
        "SIGSTOP of the postmaster and every backend; connections stay open, nothing answers",
        freeze_postgres,
        hold_s=FREEZE_S,
        long_hold_s=LONG_FREEZE_S,
        is_outage=True,
        needs_our_servers=True,
    ),
    Kind("flush-redis", "FLUSHDB", flush_redis, weight=4, forgets_queue=True),
    Kind(
        "stop-redis",
        "Redis is gone for up to 3 s, and comes back with what it had, or empty",
        stop_redis,
        weight=2,
        hold_s=(0.5, 3.0),
        is_outage=True,
        needs_our_servers=True,
        forgets_queue=True,
    ),
    Kind(
        "freeze-redis",
        "Redis keeps its connections and says nothing for up to 5 s",
        freeze_redis,
        hold_s=(1.0, 5.0),
        long_hold_s=LONG_FREEZE_S,
        is_outage=True,
        needs_our_servers=True,
    ),
)
