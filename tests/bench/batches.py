"""How long a batch takes, from its acceptance to the end of the job that follows it.

Against the same jobs without a batch, from their acceptance to the end of the last one.
"""

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import Redis

from db.engine import create_engine, create_sessions
from jobs import Client
from tests.bench.loop import Row
from tests.letters import CountBatch, a_letter, add_samples, in_the_folder
from tests.worker.running import running_worker
from worker.app import migrate_database

if TYPE_CHECKING:
    from jobs import Payload
    from worker.dev.servers import Stack

MEMBERS: Final = 10_000
ROUNDS: Final = 3
WAIT_S: Final = 300


async def ended(stack: "Stack", *, smoke: bool = False) -> Row:
    """Return the seconds of each batch, and of each of as many jobs without one."""
    members, rounds = (200, 1) if smoke else (MEMBERS, ROUNDS)
    row = Row(
        f"batch of {MEMBERS:,}, accepted to ended", "s", against="as many jobs", target="1.3x"
    )
    engine = create_engine(stack.database_url, pool_size=2, application_name="teller-bench")
    await migrate_database(engine)
    async with engine.begin() as connection:
        await add_samples(connection)
    sessions = create_sessions(engine)
    ends = _Ends()
    with in_the_folder():
        async with (
            Redis.from_url(stack.redis_url) as redis,
            running_worker(stack.database_url, stack.redis_url, ends.hear),
            Client(redis, sessions=sessions) as client,
        ):
            for _ in range(rounds):
                started_at = time.perf_counter()
                ends.expect(members)
                await client.enqueue_many(_letters(members))
                await ends.wait()
                row.theirs.append(time.perf_counter() - started_at)

                started_at = time.perf_counter()
                batch = await client.batch(_letters(members), then=CountBatch())
                await batch.result(timeout=WAIT_S)
                row.ours.append(time.perf_counter() - started_at)
    await engine.dispose()
    return row


def _letters(count: int) -> "list[Payload]":
    """Return letters of which none waits for another."""
    return [a_letter(address=uuid.uuid4().hex) for _ in range(count)]


class _Ends:
    """Counts jobs that end."""

    def __init__(self) -> None:
        self._left = 0
        self._all = asyncio.Event()

    def expect(self, jobs: int) -> None:
        """Count down from so many."""
        self._left = jobs
        self._all.clear()

    def hear(self, name: str, _fields: dict[str, Any]) -> None:
        """Count a job that has ended."""
        if name == "job.finished":
            self._left -= 1
            if self._left == 0:
                self._all.set()

    async def wait(self) -> None:
        """Wait for the last."""
        async with asyncio.timeout(WAIT_S):
            await self._all.wait()
