"""Every door from outside Python, and a stock arq client with a JSON serializer."""

import json
import uuid

import pytest
from arq import create_pool
from arq.connections import RedisSettings
from sqlalchemy import text

from jobs import Client, JobDeadError
from tests.worker.running import running_worker

LETTER = {"address": "12 High Street"}
NOBODY = {"address": "nowhere"}

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
  await ask("send_letter", payload, "node-1"),
  await ask("send_letter", payload, "node-1"),
  await ask("send_letter", { ...payload, pages: 2 }, "node-1"),
  await ask("send_letter", { ...payload, pages: "2" }, null),
  await ask("nope", payload, null),
  await ask("send_letter", payload, ""),
];
await client.query("BEGIN");
const undone = await ask("send_letter", payload, "node-2");
await client.query("ROLLBACK");
console.log(JSON.stringify([...answers, undone]));
await client.end();
"""


@pytest.fixture
async def client(letters, redis, sessions, database_url, redis_url):
    """Ours, to see what became of the jobs of others; a worker runs meanwhile."""
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs WHERE state = 'queued'"))
    async with running_worker(database_url, redis_url):
        yield Client(redis, sessions=sessions)


async def test_node_enqueues_by_sql_under_the_same_rules(node, database_url, sessions):
    answers = json.loads(node(PG, DATABASE_URL=database_url, PAYLOAD=json.dumps(LETTER)))
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
        "invalid payload for send_letter: payload.pages is a string, not a integer",
    ]
    assert unknown[0] == "TL001"
    assert "send_letter" in unknown[2]
    assert empty_key[0] == "TL004"


async def test_a_stock_arq_client_with_a_json_serializer(client, redis_url):
    pool = await create_pool(
        RedisSettings.from_dsn(redis_url),
        job_serializer=lambda job: json.dumps(job).encode(),
        job_deserializer=json.loads,
    )
    job = await pool.enqueue_job("send_letter", NOBODY, _job_id="order 42")
    again = await pool.enqueue_job("send_letter", NOBODY, _job_id="order 42")
    assert job is not None
    answer = await job.result(timeout=60, poll_delay=0.01)
    status = await job.status()
    await pool.aclose()

    assert again is None
    assert answer == {"rejected": {"code": "unknown_address", "message": "nobody lives there"}}
    assert status == "complete"
    assert await client.handle("order 42").status() == "rejected"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\x80\x04\x95",
        b"[]",
        b'{"t":null,"f":"send_letter","a":[],"k":{},"et":1}',
        b'{"t":null,"f":"send_letter","a":[1,2],"k":{},"et":1}',
        b'{"t":null,"f":"send_letter","a":[{}],"k":{"x":1},"et":1}',
        b'{"t":null,"f":"send_letter","a":[null],"k":{},"et":1}',
        b'{"t":null,"f":"send_letter","a":[{"address":"\\u0000"}],"k":{},"et":1}',
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
