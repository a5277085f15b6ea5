"""Procrastinate: `procrastinate --app tests.bench.peer_programs.procrastinate_noop.app worker`.

JSON in PostgreSQL; it has no results, and its finished jobs are deleted. More connections than its
own 4, so that 64 jobs at once do not queue for them.
"""

import os

from procrastinate import (  # type: ignore[import-not-found]  # in an environment of its own
    App,
    PsycopgConnector,
)

from tests.bench.peer_programs.counted import count

app = App(connector=PsycopgConnector(conninfo=os.environ["DATABASE_URL"], max_size=20))


@app.task(name="noop")
async def noop():
    count()


async def fill(jobs):
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        for begun in range(0, jobs, 1_000):
            await noop.batch_defer_async(*({} for _ in range(min(1_000, jobs - begun))))
