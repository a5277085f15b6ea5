"""The functions do the same under any search_path, and never use objects of their callers."""

import json
import uuid

import asyncpg
import pytest

from jobs import Client
from tests.letters import a_letter

# An attacker's: each name that our functions use, doing something else. `trapped` counts.
TRAPS = """
    CREATE SCHEMA trap;
    CREATE SEQUENCE trap.sprung;
    CREATE TABLE trap.jobs (LIKE public.jobs INCLUDING DEFAULTS);
    CREATE TABLE trap.job_kinds (LIKE public.job_kinds INCLUDING DEFAULTS);
    INSERT INTO trap.job_kinds (kind, payload_schema) VALUES ('steal', '{}');
    CREATE FUNCTION trap.spring(anyelement) RETURNS anyelement LANGUAGE sql VOLATILE AS
      $$ SELECT $1 FROM pg_catalog.nextval('trap.sprung') $$;
    CREATE FUNCTION trap.schema_fault(jsonb, jsonb, text, jsonb) RETURNS text
      LANGUAGE sql AS $$ SELECT trap.spring(NULL::text) $$;
    CREATE FUNCTION trap.has_format(text, text) RETURNS boolean
      LANGUAGE sql AS $$ SELECT trap.spring(true) $$;
    CREATE FUNCTION trap.try_enqueue_job(
      text, jsonb, text, timestamptz, uuid, text,
      OUT id uuid, OUT state text, OUT created boolean, OUT fault text, OUT message text,
      OUT hint text
    ) LANGUAGE sql AS $$ SELECT trap.spring($5), '', true, NULL, NULL, NULL $$;
    CREATE FUNCTION trap.accept_job(
      text, jsonb, text, timestamptz, uuid, text, OUT id uuid, OUT state text, OUT created boolean
    ) LANGUAGE sql AS $$ SELECT trap.spring($5), '', true $$;
    CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz
      LANGUAGE sql AS $$ SELECT trap.spring('2000-01-01'::timestamptz) $$;
    CREATE FUNCTION trap.uuidv7() RETURNS uuid
      LANGUAGE sql AS $$ SELECT trap.spring('00000000-0000-0000-0000-000000000000'::uuid) $$;
    CREATE FUNCTION trap.length(text) RETURNS integer
      LANGUAGE sql AS $$ SELECT trap.spring(1) $$;
    CREATE FUNCTION trap.octet_length(text) RETURNS integer
      LANGUAGE sql AS $$ SELECT trap.spring(1) $$;
    CREATE FUNCTION trap.jsonb_typeof(jsonb) RETURNS text
      LANGUAGE sql AS $$ SELECT trap.spring('null'::text) $$;
    CREATE FUNCTION trap.is_equal(text, text) RETURNS boolean
      LANGUAGE sql AS $$ SELECT trap.spring(true) $$;
    CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.is_equal);
    CREATE FUNCTION trap.is_equal(uuid, uuid) RETURNS boolean
      LANGUAGE sql AS $$ SELECT trap.spring(true) $$;
    CREATE OPERATOR trap.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = trap.is_equal);
    CREATE FUNCTION trap.is_other(jsonb, jsonb) RETURNS boolean
      LANGUAGE sql AS $$ SELECT trap.spring(false) $$;
    CREATE OPERATOR trap.<> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = trap.is_other);
    CREATE FUNCTION trap.has_key(jsonb, text) RETURNS boolean
      LANGUAGE sql AS $$ SELECT trap.spring(false) $$;
    CREATE OPERATOR trap.? (LEFTARG = jsonb, RIGHTARG = text, FUNCTION = trap.has_key);
    CREATE FUNCTION trap.later(timestamptz, timestamptz) RETURNS boolean
      LANGUAGE sql AS $$ SELECT trap.spring(true) $$;
    CREATE OPERATOR trap.> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = trap.later);
    CREATE FUNCTION trap.plus(timestamptz, interval) RETURNS timestamptz
      LANGUAGE sql AS $$ SELECT trap.spring($1) $$;
    CREATE OPERATOR trap.+ (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = trap.plus);
    CREATE DOMAIN trap.uuid AS text;
    CREATE DOMAIN trap.jsonb AS text;
    CREATE SCHEMA reporting;
"""
TEMPORARY = """
    CREATE TEMPORARY TABLE jobs (LIKE public.jobs INCLUDING DEFAULTS);
    CREATE TEMPORARY TABLE job_kinds (LIKE public.job_kinds INCLUDING DEFAULTS);
"""
PAYLOAD = json.dumps({"address": "12 High Street", "pages": 2})

paths = pytest.mark.parametrize(
    "path",
    ["''", "trap, pg_catalog", "reporting, pg_catalog", "pg_temp, trap, public, pg_catalog"],
)


@pytest.fixture
async def caller(new_database_url):
    """A caller's own connection, to a database where somebody has laid traps."""
    connection = await asyncpg.connect(new_database_url)
    await connection.execute(TRAPS)
    yield connection
    await connection.close()


async def sprung(caller):
    return await caller.fetchval("SELECT is_called FROM trap.sprung")


async def take(caller, path):
    await caller.execute(TEMPORARY)
    await caller.execute(f"SET search_path = {path}")


@paths
async def test_a_job_is_accepted_refused_and_cancelled(caller, path):
    await take(caller, path)
    enqueue = "SELECT public.enqueue_job('send_letter', $1::pg_catalog.jsonb, $2)"
    job = await caller.fetchval(enqueue, PAYLOAD, "k")
    again = await caller.fetchval(enqueue, PAYLOAD, "k")
    refusals = []
    for kind, payload, key in (
        ("steal", PAYLOAD, None),
        ("send_letter", '{"pages": 0}', None),
        ("send_letter", '{"address": "elsewhere"}', "k"),
        ("send_letter", PAYLOAD, ""),
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await caller.fetchval(
                "SELECT public.enqueue_job($1, $2::pg_catalog.jsonb, $3)", kind, payload, key
            )
        refusals.append(raised.value.sqlstate)
    cancelled = await caller.fetchval("SELECT public.cancel_job($1)", job)

    assert job == again
    assert refusals == ["TL001", "TL002", "TL003", "TL004"]
    assert cancelled
    await caller.execute("SET search_path = public")
    states = await caller.fetch("SELECT id, state FROM public.jobs")
    assert [tuple(row) for row in states] == [(job, "cancelled")]
    assert not await sprung(caller)


@paths
async def test_each_door_function_answers_the_same(caller, path):
    await take(caller, path)
    job = uuid.uuid4()
    fault = await caller.fetchval(
        "SELECT fault FROM public.try_enqueue_job("
        "'send_letter', $1::pg_catalog.jsonb, NULL, NULL, $2, NULL)",
        PAYLOAD,
        job,
    )
    accepted = await caller.fetchval(
        "SELECT id FROM public.accept_job("
        "'send_letter', $1::pg_catalog.jsonb, NULL, NULL, $2, NULL)",
        PAYLOAD,
        job,
    )

    assert fault is None
    assert accepted == job
    assert not await sprung(caller)


@paths
async def test_the_client_works_in_a_session_with_any_path(letters, new_database_url, caller, path):
    from sqlalchemy import text

    from db.engine import create_engine, create_sessions

    engine = create_engine(new_database_url, pool_size=1, application_name="teller-tests")
    sessions, client = create_sessions(engine), Client()
    async with sessions() as session, session.begin():
        await session.execute(text(f"SET LOCAL search_path = {path}"))
        job = await client.enqueue(a_letter(), session=session, key="k")
        again = await client.enqueue(a_letter(), session=session, key="k")
    await engine.dispose()

    assert (job.created, again.duplicate) == (True, True)
    assert await caller.fetchval("SELECT state FROM public.jobs WHERE id = $1", job.id) == "queued"
    assert not await sprung(caller)


async def test_the_functions_have_the_rights_of_their_caller(caller):
    definers = await caller.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prosecdef"
    )

    assert definers == []


async def test_no_function_of_ours_looks_its_names_up_on_its_callers_path(caller):
    """But for triggers, and for what was bound to objects when it was made."""
    exposed = await caller.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace "
        "AND NOT coalesce(proconfig @> '{\"search_path=pg_catalog, pg_temp\"}', false) "
        "AND prosqlbody IS NULL AND prorettype <> 'trigger'::regtype"
    )

    assert exposed == []
