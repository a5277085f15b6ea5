"""The scripts and bodies on the doors' pages work as they stand: they have reports built."""

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import text

from jobs import Client
from jobs.transfer_funds import TransferFunds
from tests.worker.running import running_worker

DOCS = Path(__file__).parents[2] / "docs"
BUILT = {"url", "sha256", "lines"}


@pytest.fixture
async def client(redis, sessions, database_url, redis_url, tmp_path, monkeypatch):
    """Ours, to see what became of the jobs of others; a worker runs meanwhile."""
    monkeypatch.setenv("TELLER_REPORTS_URL", tmp_path.as_uri())
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs WHERE state = 'queued'"))
    async with running_worker(database_url, redis_url):
        yield Client(redis, sessions=sessions)


def script_in(page):
    (script,) = re.findall(r"```js\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)
    return script


async def test_the_node_script_of_the_sql_door_has_its_report_built(node, client, database_url):
    job_id = node(script_in("doors.md"), DATABASE_URL=database_url)
    built = await client.handle(job_id).result(timeout=60)

    assert built.model_dump().keys() >= BUILT


async def test_the_node_script_of_the_redis_door_has_its_report_built(node, client, redis_url):
    redis_id = node(script_in("wire.md"), REDIS_URL=redis_url)
    built = await client.handle(redis_id).result(timeout=60)

    assert built.model_dump().keys() >= BUILT


async def test_the_body_on_the_page_is_byte_for_byte_what_our_client_writes(redis):
    (page_body,) = re.findall(r"```json\n(.*?)\n```", (DOCS / "wire.md").read_text(), re.DOTALL)
    shown = json.loads(page_body)

    job = await Client(redis).enqueue(TransferFunds.from_wire(shown["a"][0]))
    written = (await redis.get(f"arq:job:{job.redis_id}")).decode()

    assert re.sub(r'"et":[0-9]+', f'"et":{shown["et"]}', written) == page_body
