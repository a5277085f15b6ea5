"""deploy/roles.sql: a worker and a caller do all that is theirs, and nothing else."""

import asyncio

import asyncpg
import pytest

from db.engine import create_engine
from db.migrate import require_current
from tests.roles import refused, separate_roles
from tests.worker.loop.kit import eventually
from tests.worker.running import running_worker

DEADLINE_S = 30
PAYLOAD = '{"address": "12 High Street", "pages": 2}'
ENDED = "SELECT count(*) FROM jobs WHERE state = 'completed'"

NOT_THE_WORKERS = [
    "DROP TABLE jobs",
    "TRUNCATE jobs",
    "CREATE TABLE of_mine ()",
    "ALTER TABLE jobs DISABLE TRIGGER ALL",
    "INSERT INTO job_kinds (kind, payload_schema) VALUES ('x', '{}')",
    "DELETE FROM schedules",
    "UPDATE teller_version SET version_num = '0'",
    "INSERT INTO webhook_endpoints (name, url, secrets) VALUES ('x', 'x', '{x}')",
    "CREATE OR REPLACE FUNCTION new_id() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
]
NOT_THE_CALLERS = [
    *NOT_THE_WORKERS,
    "DELETE FROM jobs",
    "SELECT FROM workers",
    "SELECT secrets FROM webhook_endpoints",
    "UPDATE pauses SET target = target",
]


@pytest.fixture
async def roles(new_database_url):
    async with separate_roles(new_database_url, "roles.sql", samples=True) as made:
        yield made


async def test_a_callers_job_is_run_by_a_worker_and_neither_owns_anything(
    roles, redis, redis_url, letters
):
    caller = await asyncpg.connect(roles.caller)
    async with running_worker(roles.worker, redis_url):
        await caller.execute("SELECT enqueue_job('send_letter', $1::jsonb, 'one')", PAYLOAD)
        later = "SELECT enqueue_job('send_letter', $1::jsonb, 'two', now() + interval '1 day')"
        job = await caller.fetchval(later, PAYLOAD)
        assert await caller.fetchval("SELECT cancel_job($1)", job)
        async with asyncio.timeout(DEADLINE_S):
            await eventually(lambda: caller.fetchval(ENDED), deadline_s=DEADLINE_S)
    blocked = "SELECT count(*) FROM jobs WHERE blocked_by IS NOT NULL"
    assert await caller.fetchval(blocked) == 0
    await caller.close()


async def test_a_worker_finds_the_schema_current(roles):
    engine = create_engine(roles.worker, pool_size=1, application_name="teller-tests")
    await require_current(engine)
    await engine.dispose()


@pytest.mark.parametrize("statement", NOT_THE_WORKERS)
async def test_what_is_not_the_workers_is_refused(roles, statement):
    assert await refused(roles.worker, statement)


@pytest.mark.parametrize("statement", NOT_THE_CALLERS)
async def test_what_is_not_the_callers_is_refused(roles, statement):
    assert await refused(roles.caller, statement)
