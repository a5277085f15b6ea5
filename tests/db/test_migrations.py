import asyncio

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from db import migrate as migrations
from db import store  # noqa: F401 - it imports every model
from db.connector import UnsuitableDatabaseError
from db.engine import create_engine
from db.migrate import (
    MIGRATION_LOCK_ID,
    MigrationBusyError,
    SchemaOutdatedError,
    migrate,
    newest_revision,
    require_current,
)
from db.models import Base

# Columns, constraints and indexes as PostgreSQL itself prints them.
CATALOGUE = text("""
    SELECT 'column', c.relname, a.attname,
           format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' '
             || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
      AND NOT a.attisdropped
    UNION ALL
    SELECT 'constraint', conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'index', tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT 'options', relname, '', array_to_string(reloptions, ' ')
    FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'
""")


NEW_ID = "CREATE FUNCTION new_id() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'"


async def engine_of(url):
    return create_engine(url, pool_size=4, application_name="teller-tests")


async def catalogue(engine):
    async with engine.connect() as connection:
        rows = await connection.execute(CATALOGUE)
        return {tuple(row) for row in rows if row[1] != "teller_version"}


async def test_the_schema_of_the_models_is_the_schema_of_the_migrations(
    empty_database_url, new_database_url
):
    from_models, from_migrations = (
        await engine_of(empty_database_url),
        await engine_of(new_database_url),
    )
    async with from_models.begin() as connection:
        await connection.execute(text(NEW_ID))
        await connection.run_sync(Base.metadata.create_all)

    assert await catalogue(from_models) == await catalogue(from_migrations)

    await from_models.dispose()
    await from_migrations.dispose()


async def test_several_that_migrate_at_once_all_succeed(empty_database_url):
    engines = [await engine_of(empty_database_url) for _ in range(4)]

    revisions = await asyncio.gather(*(migrate(engine, {}) for engine in engines))

    assert revisions == [newest_revision()] * 4
    for engine in engines:
        await engine.dispose()


async def test_every_migration_can_be_taken_back(new_database_url):
    engine = await engine_of(new_database_url)

    def downgrade(connection):
        config = migrations.alembic_config()
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    async with engine.connect() as connection:
        await connection.run_sync(downgrade)
        await connection.commit()
    assert await catalogue(engine) == set()
    assert await migrate(engine, {}) == newest_revision()
    await engine.dispose()


async def test_a_worker_does_not_start_on_another_schema(empty_database_url):
    engine = await engine_of(empty_database_url)

    with pytest.raises(SchemaOutdatedError, match="python -m worker migrate"):
        await require_current(engine)

    await engine.dispose()


def test_the_files_of_the_migrations_are_in_the_order_of_their_numbers():
    script = ScriptDirectory.from_config(migrations.alembic_config())

    assert script.get_current_head() == newest_revision()
    assert [one.revision for one in script.walk_revisions()] == sorted(
        (path.name.partition("_")[0] for path in migrations.VERSIONS.glob("[0-9]*.py")),
        reverse=True,
    )


async def test_a_worker_starts_on_a_newer_schema(new_database_url):
    """A deploy migrates first, and the old workers may restart meanwhile."""
    engine = await engine_of(new_database_url)
    async with engine.begin() as connection:
        await connection.execute(text("UPDATE teller_version SET version_num = '9999'"))

    await require_current(engine)

    await engine.dispose()


@pytest.fixture
async def busy(empty_database_url):
    """Return an engine of a database that another process migrates."""
    engine = await engine_of(empty_database_url)
    async with engine.connect() as other:
        await other.execute(text("SELECT pg_advisory_lock(:id)"), {"id": MIGRATION_LOCK_ID})
        yield engine, other
    await engine.dispose()


async def test_whoever_waits_too_long_for_its_turn_is_told_what_is_in_the_way(busy, monkeypatch):
    monkeypatch.setattr(migrations, "WAIT_FOR_TURN_MS", 300)
    with pytest.raises(MigrationBusyError, match=r"migrating this database for 0\.3 s"):
        await migrate(busy[0], {})


async def test_it_waits_longer_than_any_statement_of_a_worker_may_take(busy, monkeypatch):
    engine, other = busy
    driver = (await other.get_raw_connection()).driver_connection
    waits = []
    monkeypatch.setattr(
        type(driver), "wait_for_answers", lambda _self, patience_s: waits.append(patience_s)
    )
    waiting = asyncio.ensure_future(migrate(engine, {}))
    await asyncio.sleep(0.5)
    assert not waiting.done()
    assert waits == [None]
    await other.rollback()
    await other.execute(text("SELECT pg_advisory_unlock_all()"))

    assert await waiting == newest_revision()


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_a_database_of_another_encoding_is_refused_before_anything_is_made(
    databases, encoding
):
    name = "teller_test_" + encoding.lower()
    await asyncio.to_thread(databases.drop, name)
    create = f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
    await asyncio.to_thread(databases.execute, create)
    engine = await engine_of(databases.url(name))
    try:
        with pytest.raises(UnsuitableDatabaseError, match=f"encoding is {encoding}.*UTF8"):
            await migrate(engine, {})
        async with engine.connect() as connection:
            made = await connection.scalar(
                text("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace")
            )
        assert made == 0
    finally:
        await engine.dispose()
        await asyncio.to_thread(databases.drop, name)
