"""Bring the database to this code's schema, and register the kinds of job."""

import asyncio
from typing import Final

import typer

from worker.app import migrate_database
from worker.cli._alive import still_working
from worker.cli._connections import open_connections
from worker.cli._options import command_line

app = command_line()

BUSY_WITH: Final = "the database: a change of the schema, or a lock that others hold"


@app.command()
def migrate() -> None:
    """Bring the database to this code's schema.

    It also registers the kinds of job. Safe to run from several places at once.
    """
    typer.echo(f"schema {asyncio.run(migrate_schema())}, job kinds registered")


async def migrate_schema() -> str:
    """Migrate the database that the settings name, and return its revision."""
    async with (
        open_connections("migrate", pool_size=2, migrated=False) as opened,
        still_working(lambda: BUSY_WITH),
    ):
        return await migrate_database(opened.engine, opened.settings.database_schema)
