"""Limits across whole workers, on real servers."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import text

from jobs import Rate, registry
from jobs._client.client import Client
from tests.letters import CatalogPrinted, LetterSent, PrintCatalog, a_letter
from tests.worker.test_queues import DEADLINE_S, press, running, sessions

__all__ = ["press", "sessions"]


def limited(**policy):
    """Return the registered jobs, with catalogs under a limit and in the queue of the letters."""
    catalog = registry()["print_catalog"]
    changed = replace(catalog, policy=replace(catalog.policy, **policy))
    return {**registry(), "print_catalog": changed}


async def attempts(sessions):
    async with sessions() as session:
        return await session.scalar(text("SELECT sum(attempts) FROM jobs"))


async def test_two_workers_run_no_more_than_the_limit_and_nobody_behind_waits(
    sessions, redis, redis_url, database_url, press
):
    options = {"queues": "default=2,reports=4", "jobs": limited(limit=2)}
    async with (
        running(database_url, redis_url, **options),
        running(database_url, redis_url, **options),
    ):
        client = Client(redis, sessions=sessions)
        catalogs = await client.enqueue_many([PrintCatalog(pages=n + 1) for n in range(12)])
        await press.wait_begun(2)
        letter = await client.enqueue(a_letter())
        assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
        assert press.begun == 2
        press.open.set()
        for pages, job in enumerate(catalogs, 1):
            assert await job.result(DEADLINE_S) == CatalogPrinted(pages=pages)
        assert press.peak == 2
        assert await attempts(sessions) == 0


async def test_a_rate_holds_across_workers(sessions, redis, redis_url, database_url, press):
    press.open.set()
    options = {"queues": "reports=4", "jobs": limited(rate=Rate(10, timedelta(seconds=1)))}
    async with (
        running(database_url, redis_url, **options),
        running(database_url, redis_url, **options),
    ):
        began = asyncio.get_running_loop().time()
        client = Client(redis, sessions=sessions)
        catalogs = await client.enqueue_many([PrintCatalog(pages=n + 1) for n in range(15)])
        for pages, job in enumerate(catalogs, 1):
            assert await job.result(DEADLINE_S) == CatalogPrinted(pages=pages)
        # Fourteen waits of a tenth of a second lie between the first and the last.
        assert asyncio.get_running_loop().time() - began >= 1.4
        assert await attempts(sessions) == 0
