"""The tables in a schema of their own, in the database of an application that has its own."""

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import make_url, text

from db.engine import create_engine, create_sessions
from db.kinds import KindTerms
from db.migrate import (
    SchemaOutdatedError,
    migrate,
    newest_revision,
    require_current,
)
from jobs import Client
from tests.letters import a_letter, add_samples, letters_at
from tests.worker.running import running_worker
from worker.app import migrate_database
from worker.errors import StartupError
from worker.settings import load_settings

OWN = "teller"

# Every name that ours would like to have, and Alembic's usual version table.
AN_APPLICATION = (
    "CREATE TABLE public.jobs (title text NOT NULL)",
    "CREATE TABLE public.workers (name text NOT NULL)",
    "CREATE TABLE public.users (id integer PRIMARY KEY, name text NOT NULL)",
)
REVISION = """
from alembic import op

revision, down_revision = {revision!r}, {before!r}


def upgrade():
    for statement in {statements!r}:
        op.execute(statement)
"""
ENVIRONMENT = """
from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
"""
TABLES_IN_PUBLIC = text("""
    SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'
""")


class Application:
    """A team's own migrations, in their own folder."""

    def __init__(self, folder, engine):
        self._folder = folder
        self._engine = engine
        (folder / "versions").mkdir()
        (folder / "env.py").write_text(ENVIRONMENT)
        self._add("a1", None, *AN_APPLICATION)
        self._add("a2", "a1", "ALTER TABLE public.users ADD COLUMN email text")

    def _add(self, revision, before, *statements):
        script = REVISION.format(revision=revision, before=before, statements=statements)
        (self._folder / "versions" / f"{revision}.py").write_text(script)

    async def upgrade(self, revision):
        def run(connection):
            config = Config()
            config.set_main_option("script_location", str(self._folder))
            config.set_main_option("path_separator", "os")
            config.attributes["connection"] = connection
            command.upgrade(config, revision)

        async with self._engine.begin() as connection:
            await connection.run_sync(run)

    async def tables(self):
        async with self._engine.connect() as connection:
            return {tuple(row) for row in await connection.execute(TABLES_IN_PUBLIC)}


@pytest.fixture
async def application(empty_database_url, tmp_path):
    engine = create_engine(empty_database_url, pool_size=2, application_name="an application")
    made = Application(tmp_path, engine)
    await made.upgrade("a1")
    yield made
    await engine.dispose()


@pytest.fixture
async def engine(empty_database_url):
    made = create_engine(
        empty_database_url, pool_size=2, application_name="teller-tests", schema=OWN
    )
    yield made
    await made.dispose()


async def test_an_application_keeps_its_tables_and_its_own_migrations_go_on(application, engine):
    before = await application.tables()

    assert await migrate_database(engine, OWN) == newest_revision()

    assert await application.tables() == before
    await application.upgrade("a2")
    assert await application.tables() == before | {("users", "email")}
    assert await migrate_database(engine, OWN) == newest_revision()
    await require_current(engine, OWN)


async def test_without_a_schema_of_its_own_it_says_what_to_set(application, empty_database_url):
    before = await application.tables()
    engine = create_engine(empty_database_url, pool_size=2, application_name="teller-tests")

    with pytest.raises(StartupError, match="set TELLER_SCHEMA"):
        await migrate_database(engine)

    await engine.dispose()
    assert await application.tables() == before


async def test_an_application_enqueues_in_its_own_transaction_and_a_worker_runs_it(
    application, engine, empty_database_url, redis, redis_url, letters, monkeypatch
):
    await migrate_database(engine, OWN)
    async with engine.begin() as connection:
        await add_samples(connection)
    own = create_engine(empty_database_url, pool_size=2, application_name="an application")
    client = Client(redis, sessions=create_sessions(own), schema=OWN)
    async with create_sessions(own)() as session, session.begin():
        await session.execute(text("INSERT INTO users VALUES (1, 'Ada')"))
        handle = await client.enqueue(a_letter(), session=session)

    monkeypatch.setenv("TELLER_SCHEMA", OWN)
    monkeypatch.setenv("TELLER_HEALTH_PORT", "0")
    async with running_worker(empty_database_url, redis_url):
        await handle.result(timeout=30)

    assert await handle.status() == "completed"
    assert len(await letters_at(create_sessions(own), a_letter().address)) == 1
    await client.aclose()
    await own.dispose()


async def test_tables_of_another_schema_are_not_taken_for_its_own(new_database_url):
    """`public` is in the search_path, and has tables of the same names."""
    engine = create_engine(new_database_url, pool_size=2, application_name="tests", schema=OWN)

    with pytest.raises(SchemaOutdatedError, match="tables in schema teller are at revision none"):
        await require_current(engine, OWN)

    await engine.dispose()


async def test_an_older_release_leaves_a_newer_ones_tables_and_kinds_alone(new_database_url):
    engine = create_engine(new_database_url, pool_size=2, application_name="teller-tests")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE teller_version SET version_num = '9999'"))
        await connection.execute(text("UPDATE job_kinds SET payload_schema = '{}'"))

    assert await migrate(engine, {"send_letter": KindTerms({"type": "object"})}) == "9999"

    async with engine.connect() as connection:
        schemas = await connection.execute(text("SELECT DISTINCT payload_schema FROM job_kinds"))
        assert schemas.scalars().all() == [{}]
    await engine.dispose()


async def test_a_revision_that_is_no_release_of_ours_is_refused(new_database_url):
    engine = create_engine(new_database_url, pool_size=2, application_name="teller-tests")
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE teller_version SET version_num = '0000'"))

    with pytest.raises(SchemaOutdatedError, match="at revision 0000"):
        await require_current(engine)

    await engine.dispose()


async def test_a_role_that_may_not_make_schemas_migrates_into_the_one_it_was_given(
    empty_database_url,
):
    owner = create_engine(empty_database_url, pool_size=2, application_name="owner")
    async with owner.begin() as connection:
        await connection.execute(text("CREATE ROLE tenant LOGIN"))
        await connection.execute(text("CREATE SCHEMA tenant AUTHORIZATION tenant"))
    url = make_url(empty_database_url).set(username="tenant", password=None)
    engine = create_engine(
        url.render_as_string(hide_password=False),
        pool_size=2,
        application_name="tenant",
        schema="tenant",
    )
    try:
        assert await migrate_database(engine, "tenant") == newest_revision()
    finally:
        await engine.dispose()
        async with owner.begin() as connection:
            await connection.execute(text("DROP OWNED BY tenant CASCADE"))
            await connection.execute(text("DROP ROLE tenant"))
        await owner.dispose()


@pytest.mark.parametrize("name", ["", "Teller", "pg_teller", "a b", "a;b", "é", "a" * 64])
def test_a_schema_has_a_plain_name(name):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_URL", "postgresql://db.example/teller")
        patch.setenv("REDIS_URL", "redis://redis.example")
        patch.setenv("TELLER_SCHEMA", name)
        with pytest.raises(StartupError, match="TELLER_SCHEMA"):
            load_settings()


def test_a_client_refuses_a_schema_that_could_be_more_than_a_name():
    with pytest.raises(ValueError, match="TELLER_SCHEMA"):
        Client(schema='x"; DROP TABLE jobs; --')
