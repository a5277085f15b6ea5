"""Keep PostgreSQL, Valkey and a worker running for development."""

import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Thread
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.cli._options import command_line
from worker.cli.migrate import migrate_schema
from worker.dev.local import given_settings, local_servers
from worker.monitoring.events import Events, log_events
from worker.process.gateway import gateway
from worker.process.supervisor import PROCESSES_MAX, Supervisor

if TYPE_CHECKING:
    from worker.settings import Settings

app = command_line()

DESK_STOPS_WITHIN_S: Final = 5.0

Processes = Annotated[int, typer.Option(min=1, max=PROCESSES_MAX, help="Worker processes.")]


@app.command()
def dev(processes: Processes = 1) -> None:
    """Start PostgreSQL, Valkey, a worker and the desk, and print URLs.

    The servers come from wheels; DATABASE_URL and REDIS_URL win where they are set. Data stays in
    .teller/; Ctrl-C stops everything. On a terminal the log is a plain line for each job, else
    JSON (TELLER_LOG_FORMAT).
    """
    if sys.stderr.isatty() and "TELLER_LOG_FORMAT" not in given_settings():
        os.environ["TELLER_LOG_FORMAT"] = "plain"
    events = Events(log_events)
    with local_servers(say=typer.echo) as settings, gateway(settings, processes, events):
        asyncio.run(migrate_schema())
        typer.echo(f"export DATABASE_URL={settings.database_url}")
        typer.echo(f"export REDIS_URL={settings.redis_url}")
        typer.echo(f"reports go to {settings.reports_url}; Ctrl-C stops everything")
        command = [sys.executable, "-m", "worker", "run"]
        with _desk(settings):
            code = asyncio.run(Supervisor(command, processes, events, restart=True).run())
    raise typer.Exit(code)


@contextmanager
def _desk(settings: "Settings") -> Iterator[None]:
    """Serve the desk beside the worker, in a thread; whoever opens its link may act."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        typer.echo("no desk: pip install 'teller[desk]'")
        yield
        return
    from worker.desk.server import server_of
    from worker.desk.settings import load_desk_settings

    server = server_of(settings, load_desk_settings(), operate=True, say=typer.echo)
    thread = Thread(target=lambda: asyncio.run(server.serve()), name="desk", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(DESK_STOPS_WITHIN_S)
