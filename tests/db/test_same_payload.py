"""Payloads are the same if jsonb says so, however numbers, keys and letters are spelled."""

import asyncio
import json
import uuid
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import Client, KeyConflictError
from jobs._wire import QueuedJob, create, put
from tests.letters import RepeatValue
from tests.worker.running import running_worker

SPELLINGS = [
    ["1.5", "1.50", "15e-1", "0.15E1", "1.500000000000000000000"],
    ["100", "1e2", "100.0", "1E+2"],
    ["0", "-0", "0.0", "-0.0e5"],
    ["0.1000000000000000055", "0.10000000000000000550"],
    ["12345678901234567890.5", "1.23456789012345678905e19"],
    ["1000000000000000000000000000000", "1e30"],
    ['"\\u00e9"', '"é"'],
    ['"\\ud83d\\ude00"', '"😀"'],
    ['{"a": 1, "b": [2]}', '{"b":[2.0],"a":1e0}', '{"a": 7, "b": [2], "a": 1}'],
]
DIFFERENT = [
    ("0.1", "0.1000000000000000055"),
    ("12345678901234567890.5", "12345678901234567890"),
    ("1", "true"),
    ("0", "false"),
    ("1", '"1"'),
    ("null", "0"),
    ("[1, 2]", "[2, 1]"),
    ("[]", "{}"),
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(
                st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=4
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.fixture
async def database(database_url):
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def enqueue(database, value_json, key):
    return await database.fetchval(
        "SELECT enqueue_job('repeat_value', CAST($1 AS text)::jsonb, $2)",
        f'{{"value": {value_json}}}',
        key,
    )


async def create_raw(redis, value_json, key):
    """Store a job in Redis as a client in another language would, with its own spelling."""
    job = QueuedJob(f"repeat_value:{key}", "repeat_value", f'{{"value": {value_json}}}')
    assert await create(redis, [job]) == [None]


@pytest.mark.parametrize("spellings", SPELLINGS, ids=lambda spellings: spellings[0])
async def test_the_same_value_in_another_spelling_is_the_same_job(database, spellings):
    key = uuid.uuid4().hex
    jobs = {await enqueue(database, spelling, key) for spelling in spellings}

    assert len(jobs) == 1


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
async def test_another_value_under_the_same_key_is_a_conflict(database, one, other):
    key = uuid.uuid4().hex
    await enqueue(database, one, key)

    with pytest.raises(asyncpg.PostgresError) as raised:
        await enqueue(database, other, key)
    assert raised.value.sqlstate == "TL003"


@pytest.mark.parametrize("spellings", SPELLINGS[:3] + SPELLINGS[6:], ids=lambda each: each[0])
async def test_through_redis_another_spelling_is_the_same_job_too(letters, redis, spellings):
    value: Any = json.loads(spellings[0])
    for spelling in spellings:
        key = uuid.uuid4().hex
        await create_raw(redis, spelling, key)
        job = await Client(redis).enqueue(RepeatValue(value=value), key=key)

        assert job.duplicate, spelling


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
async def test_through_redis_another_value_is_a_conflict_too(letters, redis, one, other):
    key = uuid.uuid4().hex
    await create_raw(redis, other, key)

    with pytest.raises(KeyConflictError):
        await Client(redis).enqueue(RepeatValue(value=json.loads(one)), key=key)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(value=JSON)
async def test_any_value_is_the_same_job_through_the_client_and_through_sql(
    letters, sessions, redis, database, value
):
    client, key = Client(sessions=sessions), uuid.uuid4().hex
    job = await client.enqueue(RepeatValue(value=value), key=key)
    shuffled = json.dumps(_reversed(value), indent=1)

    assert await enqueue(database, json.dumps(value), key) == job.id
    assert await enqueue(database, shuffled, key) == job.id
    assert (await client.enqueue(RepeatValue(value=value), key=key)).duplicate
    stored = await database.fetchval("SELECT payload::text FROM jobs WHERE id = $1", job.id)
    await create_raw(redis, json.dumps(json.loads(stored)["value"]), key)
    assert (await Client(redis).enqueue(RepeatValue(value=value), key=key)).duplicate


def _reversed(value):
    """Return an equal value whose keys are in another order."""
    match value:
        case dict():
            return {key: _reversed(value[key]) for key in reversed(value)}
        case list():
            return [_reversed(one) for one in value]
    return value


async def test_every_spelling_runs_and_completes_by_its_row_and_by_a_message_of_its_own(
    letters, redis, sessions, database, database_url, redis_url
):
    every = [one for spellings in SPELLINGS for one in spellings]
    jobs = [await enqueue(database, spelling, uuid.uuid4().hex) for spelling in every]
    rang = [
        QueuedJob(str(job), "repeat_value", f'{{"value": {spelling}}}')
        for job, spelling in zip(jobs, every, strict=True)
    ]
    await put(redis, rang[::2])  # the relay sends the others
    async with running_worker(database_url, redis_url), Client(sessions=sessions) as client:
        answers = await asyncio.gather(*(client.handle(job).result(timeout=60) for job in jobs))
    states = await database.fetch("SELECT state, errors FROM jobs WHERE id = ANY($1)", jobs)

    assert len(answers) == len(every)
    assert {tuple(row) for row in states} == {("completed", "[]")}
