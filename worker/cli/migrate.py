"""Bring the database to this code's schema, and register the kinds of job."""

import asyncio

import typer

from worker.app import database, migrate_database
from worker.settings import load_settings

app = typer.Typer(add_completion=False, help=__doc__)


@app.command()
def migrate() -> None:
    """Bring the database to this code's schema; safe to run from several places at once."""
    typer.echo(f"schema {asyncio.run(_migrate())}, job kinds registered")


async def _migrate() -> str:
    async with database(load_settings(), name="teller-migrate", pool_size=1) as engine:
        return await migrate_database(engine)
