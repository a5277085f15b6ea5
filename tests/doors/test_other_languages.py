"""Every door from outside Python, and a stock arq client with a JSON serializer."""

import json
import re
import uuid
from pathlib import Path

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from sqlalchemy import text

from jobs import Client, JobDeadError
from tests.worker.running import running_worker

DOCS = Path(__file__).parents[2] / "docs"
BUILT = {"url", "sha256", "lines"}

PG = """
import pg from "pg";
const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
const ask = (...values) =>
  client.query("SELECT enqueue_job($1, $2, $3) AS id", values).then(
    ({ rows }) => rows[0].id,
    (error) => [error.code, error.message, error.hint],
  );
const payload = JSON.parse(process.env.PAYLOAD);
const answers = [
  await ask("transfer_funds", payload, "node-1"),
  await ask("transfer_funds", payload, "node-1"),
  await ask("transfer_funds", { ...payload, amount: "2.00" }, "node-1"),
  await ask("transfer_funds", { ...payload, amount: 12.5 }, null),
  await ask("nope", payload, null),
  await ask("transfer_funds", payload, ""),
];
await client.query("BEGIN");
const undone = await ask("transfer_funds", payload, "node-2");
await client.query("ROLLBACK");
console.log(JSON.stringify([...answers, undone]));
await client.end();
"""


@pytest.fixture
def transfer():
    return {
        "from_account": str(uuid.UUID(int=1)),
        "to_account": str(uuid.UUID(int=2)),
        "amount": "1.00",
        "currency": "EUR",
    }


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


async def test_node_enqueues_by_sql_under_the_same_rules(node, database_url, transfer, sessions):
    answers = json.loads(node(PG, DATABASE_URL=database_url, PAYLOAD=json.dumps(transfer)))
    first, again, conflict, invalid, unknown, empty_key, undone = answers
    async with sessions() as session:
        there = await session.scalar(
            text("SELECT count(*) FROM jobs WHERE id = :id"), {"id": first}
        )
        gone = await session.scalar(
            text("SELECT count(*) FROM jobs WHERE id = :id"), {"id": undone}
        )

    assert first == again
    assert (there, gone) == (1, 0)
    assert conflict[0] == "TL003"
    assert invalid[:2] == [
        "TL002",
        "invalid payload for transfer_funds: payload.amount is a number, not a string",
    ]
    assert unknown[0] == "TL001"
    assert "transfer_funds" in unknown[2]
    assert empty_key[0] == "TL004"


async def test_the_node_script_of_the_sql_door_has_its_report_built(node, client, database_url):
    job_id = node(script_in("doors.md"), DATABASE_URL=database_url)
    built = await client.handle(job_id).result(timeout=60)

    assert built.model_dump().keys() >= BUILT


async def test_the_node_script_of_the_redis_door_has_its_report_built(node, client, redis_url):
    redis_id = node(script_in("wire.md"), REDIS_URL=redis_url)
    built = await client.handle(redis_id).result(timeout=60)

    assert built.model_dump().keys() >= BUILT


async def test_the_body_on_the_page_is_byte_for_byte_what_our_client_writes(redis, transfer):
    (page_body,) = re.findall(r"```json\n(.*?)\n```", (DOCS / "wire.md").read_text(), re.DOTALL)
    shown = json.loads(page_body)
    from jobs.transfer_funds import TransferFunds

    job = await Client(redis).enqueue(TransferFunds.from_wire(shown["a"][0]))
    written = (await redis.get(f"arq:job:{job.redis_id}")).decode()

    assert re.sub(r'"et":[0-9]+', f'"et":{shown["et"]}', written) == page_body


async def test_a_stock_arq_client_with_a_json_serializer(client, redis_url, transfer):
    pool = await create_pool(
        RedisSettings.from_dsn(redis_url),
        job_serializer=lambda job: json.dumps(job).encode(),
        job_deserializer=json.loads,
    )
    job = await pool.enqueue_job("transfer_funds", transfer, _job_id="order 42")
    again = await pool.enqueue_job("transfer_funds", transfer, _job_id="order 42")
    assert job is not None
    answer = await job.result(timeout=60, poll_delay=0.01)
    status = await job.status()
    await pool.aclose()

    assert again is None
    assert answer == {"rejected": {"code": "unknown_account", "message": ""}}
    assert status == "complete"
    assert await client.handle("order 42").status() == "rejected"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\x80\x04\x95",
        b"[]",
        b'{"t":null,"f":"transfer_funds","a":[],"k":{},"et":1}',
        b'{"t":null,"f":"transfer_funds","a":[1,2],"k":{},"et":1}',
        b'{"t":null,"f":"transfer_funds","a":[{}],"k":{"x":1},"et":1}',
        b'{"t":null,"f":"transfer_funds","a":[null],"k":{},"et":1}',
        b'{"t":null,"f":"transfer_funds","a":[{"amount":"\\u0000"}],"k":{},"et":1}',
    ],
)
async def test_whatever_arrives_by_redis_ends_in_postgresql(client, redis, sessions, body):
    redis_id = uuid.uuid4().hex
    await redis.set(f"arq:job:{redis_id}", body)
    await redis.zadd("arq:queue", {redis_id: 1})
    await redis.zadd("arq:queue:bell", {"ring": 0})

    with pytest.raises(JobDeadError):
        await client.handle(redis_id).result(timeout=60)
    async with sessions() as session:
        state = await session.scalar(
            text("SELECT state FROM jobs WHERE id = :id"), {"id": client.handle(redis_id).id}
        )
    assert state == "dead"
