"""How fast an emptied queue is built anew from the record."""

import time
from typing import Final

from redis.asyncio import Redis
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from tests.bench.loop import Row
from worker.app import migrate_database
from worker.dev.servers import Stack
from worker.maintenance.relay import Relay
from worker.monitoring.events import Events

JOBS: Final = 100_000
ROUNDS: Final = 3
QUEUE: Final = "arq:queue"

ACCEPT = text("""
    INSERT INTO jobs (kind, payload)
    SELECT 'transfer_funds', payload FROM (
      SELECT jsonb_build_object('from_account', new_id(), 'to_account', new_id(),
                                'amount', '12.34', 'currency', 'EUR') AS payload
      FROM generate_series(1, :jobs)) AS made
""")


async def rebuilt(stack: Stack, *, smoke: bool = False) -> Row:
    """Return the jobs per second of each rebuild."""
    row = Row("queue rebuilt after a flush", "jobs/s", against="", target="10,000 jobs/s")
    jobs, rounds = (2_000, 1) if smoke else (JOBS, ROUNDS)
    engine = create_engine(stack.database_url, pool_size=2, application_name="teller-bench")
    await migrate_database(engine)
    sessions = create_sessions(engine)
    async with Redis.from_url(stack.redis_url) as redis:
        async with sessions() as session, session.begin():
            await session.execute(ACCEPT, {"jobs": jobs})
        for _ in range(rounds):
            await redis.flushall()
            started_at = time.perf_counter()
            await _rebuild(Relay(sessions, redis, QUEUE, Events()))
            row.ours.append(jobs / (time.perf_counter() - started_at))
            assert await redis.zcard(QUEUE) == jobs
    await engine.dispose()
    return row


async def _rebuild(relay: Relay) -> None:
    while not (await relay.round()).rebuilt:
        pass
