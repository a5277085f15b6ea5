"""Keep PostgreSQL, Valkey and a worker running for development."""

import asyncio
import sys
from typing import Annotated

import typer

from worker.cli._options import command_line
from worker.cli.migrate import migrate_schema
from worker.dev.local import local_servers
from worker.monitoring.events import Events, log_events
from worker.process.gateway import gateway
from worker.process.supervisor import PROCESSES_MAX, Supervisor

app = command_line()

Processes = Annotated[int, typer.Option(min=1, max=PROCESSES_MAX, help="Worker processes.")]


@app.command()
def dev(processes: Processes = 1) -> None:
    """Start PostgreSQL, Valkey and a worker, and print their URLs.

    The servers come from wheels; DATABASE_URL and REDIS_URL win where they are set. Data stays in
    .teller/; Ctrl-C stops everything.
    """
    events = Events(log_events)
    with local_servers() as settings, gateway(settings, processes, events):
        asyncio.run(migrate_schema())
        typer.echo(f"export DATABASE_URL={settings.database_url}")
        typer.echo(f"export REDIS_URL={settings.redis_url}")
        typer.echo(f"reports go to {settings.reports_url}; Ctrl-C stops everything")
        command = [sys.executable, "-m", "worker", "run"]
        code = asyncio.run(Supervisor(command, processes, events, restart=True).run())
    raise typer.Exit(code)
