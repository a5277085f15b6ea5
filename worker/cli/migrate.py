"""Bring the database to this code's schema, and register the kinds of job."""

import asyncio

import typer

from worker.app import migrate_database
from worker.cli._connections import open_connections
from worker.cli._options import command_line

app = command_line()


@app.command()
def migrate() -> None:
    """Bring the database to this code's schema.

    It also registers the kinds of job. Safe to run from several places at once.
    """
    typer.echo(f"schema {asyncio.run(migrate_schema())}, job kinds registered")


async def migrate_schema() -> str:
    """Migrate the database that the settings name, and return its revision."""
    async with open_connections("migrate", pool_size=2, migrated=False) as opened:
        return await migrate_database(opened.engine, opened.settings.database_schema)
