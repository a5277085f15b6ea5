"""Keep PostgreSQL, Valkey and a worker running for development."""

import asyncio
import sys
from typing import Annotated

import typer

from worker.app import database, migrate_database
from worker.dev.local import services
from worker.monitoring.events import Events, log_events
from worker.process.gateway import gateway
from worker.process.supervisor import PROCESSES_MAX, Supervisor
from worker.settings import Settings

app = typer.Typer(add_completion=False, help=__doc__)

Processes = Annotated[int, typer.Option(min=1, max=PROCESSES_MAX, help="Worker processes.")]


@app.command()
def dev(processes: Processes = 1) -> None:
    """Start PostgreSQL and Valkey from wheels, a worker on them, and print their URLs.

    DATABASE_URL and REDIS_URL win where they are set. Data stays in .teller/; Ctrl-C stops all.
    """
    events = Events(log_events)
    with services() as settings, gateway(settings, processes, events):
        asyncio.run(_migrate(settings))
        typer.echo(f"export DATABASE_URL={settings.database_url}")
        typer.echo(f"export REDIS_URL={settings.redis_url}")
        typer.echo(f"reports go to {settings.reports_url}; Ctrl-C stops everything")
        command = [sys.executable, "-m", "worker", "run"]
        code = asyncio.run(Supervisor(command, processes, events, restart=True).run())
    raise typer.Exit(code)


async def _migrate(settings: Settings) -> None:
    async with database(settings, name="teller-migrate", pool_size=1) as engine:
        await migrate_database(engine)
