import asyncio

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from db import migrate as migrations
from db import store  # noqa: F401 - it imports every model
from db.engine import create_engine
from db.migrate import SchemaOutdatedError, migrate, newest_revision, require_current
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


async def engine_of(url):
    return create_engine(url, pool_size=4, application_name="teller-tests")


async def catalogue(engine):
    async with engine.connect() as connection:
        rows = await connection.execute(CATALOGUE)
        return {tuple(row) for row in rows if row[1] != "alembic_version"}


async def test_the_schema_of_the_models_is_the_schema_of_the_migrations(
    empty_database_url, new_database_url
):
    from_models, from_migrations = (
        await engine_of(empty_database_url),
        await engine_of(new_database_url),
    )
    async with from_models.begin() as connection:
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
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    await require_current(engine)

    await engine.dispose()
