"""Whatever is pushed through a door: an accepted job or a typed refusal, and never a lost job."""

import asyncio
import json
import uuid

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from jobs import Client, ClientError, Request, parse_payload
from jobs._wire import job_id_of
from tests.examples import examples
from tests.letters import in_the_folder
from tests.worker.running import running_worker
from worker.cli.enqueue.keys import Keys
from worker.cli.enqueue.lines import BadLine, JobLine, Line, parse_line
from worker.execution.serializer import MALFORMED, JobReader

pytestmark = [pytest.mark.slow, pytest.mark.examples]

FUZZ = settings(
    max_examples=examples(2_500),  # of four doors: 10,000 in all
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

LETTER = {"address": "12 High Street", "pages": 2, "reference": str(uuid.UUID(int=1))}
CARD = {"name": "ann"}

TEXT = st.text(max_size=20) | st.sampled_from(
    ["", "\x00", "\ud800", "k" * 200, "k" * 201, "é" * 200]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
KINDS = st.sampled_from(["send_letter", "send_card", "purge_record", "nope"]) | TEXT
FIELDS = st.sampled_from(["address", "pages", "name", "extra", "reference"])
PAYLOADS = st.one_of(
    JSON,
    st.sampled_from([LETTER, CARD]),
    st.tuples(st.sampled_from([LETTER, CARD]), FIELDS, JSON).map(
        lambda parts: {**parts[0], parts[1]: parts[2]}
    ),
)
KEYS = st.none() | TEXT


@pytest.fixture(scope="module", autouse=True)
def letters_for_all():
    with in_the_folder():
        yield


@pytest.fixture(scope="module")
def loop():
    made = asyncio.new_event_loop()
    yield made
    made.close()


@pytest.fixture(scope="module")
def clients(loop, database_url, servers):
    """Ours through the database, and ours through Redis."""
    engine = create_engine(database_url, pool_size=2, application_name="fuzz")
    sessions = create_sessions(engine)
    redis = Redis.from_url(servers[1])
    yield Client(redis, sessions=sessions), Client(redis)
    loop.run_until_complete(redis.aclose())
    loop.run_until_complete(engine.dispose())


@FUZZ
@given(kind=KINDS, payload=PAYLOADS, key=KEYS)
def test_the_client_accepts_or_refuses_by_type(loop, clients, kind, payload, key):
    through_database, through_redis = clients

    async def try_both():
        try:
            request = Request(parse_payload(kind, payload), key=key)
        except ClientError:
            return
        for client in (through_database, through_redis):
            try:
                (job,) = await client.enqueue_many([request])
            except ClientError:
                continue
            assert await job.status() == "queued"
        await through_database.aclose()

    loop.run_until_complete(try_both())


@FUZZ
@given(kind=KINDS, payload=PAYLOADS, key=KEYS)
def test_the_sql_door_accepts_or_raises_one_of_its_own(fuzzed_database, kind, payload, key):
    query = (kind, json.dumps(payload), key)
    try:
        row = fuzzed_database.execute("SELECT enqueue_job(%s, %s::jsonb, %s)", query).fetchone()
    except (UnicodeEncodeError, psycopg.Error) as error:
        refusal = getattr(error, "sqlstate", None)
    else:
        refusal = "none"
        stored = fuzzed_database.execute("SELECT state FROM jobs WHERE id = %s", row).fetchone()
        assert stored == ("queued",)

    # Ours; or jsonb and text refuse by themselves: not JSON, U+0000, a lone surrogate.
    assert refusal in {"none", "TL001", "TL002", "TL003", "TL004", "22P02", "22P05", None}


@pytest.fixture(scope="module")
def fuzzed_database(database_url):
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@FUZZ
@given(
    st.binary(max_size=200)
    | st.fixed_dictionaries(
        {"kind": KINDS, "payload": PAYLOADS}, optional={"key": KEYS, "run_at": TEXT, "more": JSON}
    ).map(lambda line: json.dumps(line).encode())
)
def test_a_line_of_a_file_is_a_job_or_a_reason(line_keys, line):
    parsed = parse_line(Line(1, line, len(line)), line_keys)

    assert parsed is None or isinstance(parsed, JobLine | BadLine)
    if isinstance(parsed, JobLine):
        assert isinstance(json.loads(parsed.candidate.payload_json), dict)
        assert 1 <= len(parsed.candidate.key or "") <= 200


@pytest.fixture(scope="module")
def line_keys():
    with Keys("fuzz") as made:
        yield made


BODIES = st.one_of(
    st.binary(max_size=60),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {
            "f": KINDS,
            "a": st.lists(PAYLOADS, max_size=2) | JSON,
            "k": st.just({}) | JSON,
            "et": st.just(1_700_000_000_000) | JSON,
            "t": st.none() | JSON,
        }
    ).map(lambda body: json.dumps(body).encode()),
)


def test_a_kind_that_the_record_cannot_hold_is_kept_as_malformed():
    job = JobReader(frozenset())(b'{"t":null,"f":"\\u0000","a":[],"k":{},"et":1}')

    assert job["f"] == MALFORMED


async def test_whatever_arrives_by_redis_ends_in_postgresql(
    database_url, redis_url, sessions, redis
):
    """Hundreds of bodies, most of them no job, worked off by a whole worker."""
    bodies = []

    @settings(FUZZ, max_examples=examples(1_000))
    @given(BODIES)
    def collect(body):
        bodies.append(body)

    collect()
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    ids = [f"fuzz-{number}" for number in range(len(bodies))]
    async with redis.pipeline(transaction=True) as pipeline:
        for redis_id, body in zip(ids, bodies, strict=True):
            pipeline.set(f"arq:job:{redis_id}", body)
            pipeline.zadd("arq:queue", {redis_id: 1})
        await pipeline.execute()
    waiting = {str(job_id_of(redis_id)) for redis_id in ids}
    told = asyncio.Event()

    def hear(name, fields):
        waiting.discard(fields.get("job_id"))
        if not waiting:
            told.set()

    async with running_worker(database_url, redis_url, hear), asyncio.timeout(60):
        await told.wait()
    async with sessions() as session:
        rows = await session.execute(text("SELECT id, state FROM jobs"))
        states = {row.id: row.state for row in rows}

    assert {job_id_of(redis_id) for redis_id in ids} <= states.keys()
    # What is still queued is of a kind that some other worker may know.
    assert set(states.values()) <= {"dead", "queued", "rejected", "completed"}
