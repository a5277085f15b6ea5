"""`python -m tests.bench.relay`: how fast an emptied queue is built anew from the record."""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from redis.asyncio import Redis
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from worker.app import migrate_database
from worker.embedded import Stack
from worker.events import Events
from worker.relay import Relay

JOBS: Final = 100_000
ROUNDS: Final = 3
QUEUE: Final = "arq:queue"

ACCEPT = text("""
    INSERT INTO jobs (kind, payload, payload_hash)
    SELECT 'transfer_funds', payload, payload_hash(payload) FROM (
      SELECT jsonb_build_object('from_account', uuidv7(), 'to_account', uuidv7(),
                                'amount', '12.34', 'currency', 'EUR') AS payload
      FROM generate_series(1, :jobs)) AS made
""")


async def measure(stack: Stack) -> list[float]:
    """Return the jobs per second of each rebuild."""
    engine = create_engine(stack.database_url, pool_size=2, application_name="teller-bench")
    await migrate_database(engine)
    sessions = create_sessions(engine)
    rates = []
    async with Redis.from_url(stack.redis_url) as redis:
        async with sessions() as session, session.begin():
            await session.execute(ACCEPT, {"jobs": JOBS})
        for _ in range(ROUNDS):
            await redis.flushall()
            started_at = time.perf_counter()
            sent = await Relay(sessions, redis, QUEUE, Events()).round()
            rates.append(sent.jobs / (time.perf_counter() - started_at))
            assert sent.rebuilt
            assert sent.jobs == await redis.zcard(QUEUE) == JOBS
    await engine.dispose()
    return rates


def main() -> None:
    """Measure, and print every round."""
    with TemporaryDirectory() as folder, Stack.start(Path(folder), durable=True) as stack:
        rates = asyncio.run(measure(stack))
    print(f"{JOBS:,} queued jobs, Redis flushed, queue rebuilt:")  # noqa: T201 - its purpose
    for rate in rates:
        print(f"{rate:>10,.0f} jobs/s")  # noqa: T201 - as above


if __name__ == "__main__":
    main()
