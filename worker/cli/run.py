"""Run the worker until a signal stops it."""

import asyncio
import os
from typing import Annotated

import typer

from worker.cli._options import UsageError, command_line
from worker.monitoring.events import Events, log_events
from worker.monitoring.logs import configure_all_logs
from worker.process.__main__ import become_worker, command
from worker.process.gateway import gateway
from worker.process.supervisor import PROCESSES_MAX, Supervisor
from worker.settings import chosen_queues, load_settings

app = command_line()

Processes = Annotated[
    int, typer.Option(min=1, max=PROCESSES_MAX, help="Worker processes, restarted when they crash.")
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, max=1_000, help="Jobs at a time in each process.")
]
Queues = Annotated[
    str | None,
    typer.Option(
        help="The queues to serve, as in TELLER_QUEUES: reports, or default=16,reports=2."
    ),
]
Burst = Annotated[bool, typer.Option("--burst", help="Run what is queued, then exit.")]


@app.command()
def run(
    processes: Processes = 1,
    concurrency: Concurrency = None,
    queues: Queues = None,
    burst: Burst = False,  # noqa: FBT002 - a flag of the command line
) -> None:
    """Run the worker until SIGTERM drains it.

    A second signal ends it at once. Exit code 0 after a clean drain, 1 when a process ended badly.
    """
    if concurrency is not None:
        os.environ["TELLER_CONCURRENCY"] = str(concurrency)
    settings = load_settings()
    if queues is not None:
        try:
            os.environ["TELLER_QUEUES"] = chosen_queues(queues, settings.queues)
        except ValueError as error:
            raise UsageError(f"--queues: {error}") from None
        settings = load_settings()
    configure_all_logs(settings.log_level, settings.log_format)
    if processes > 1:
        events = Events(log_events)
        with gateway(settings, processes, events):
            supervisor = Supervisor(command(burst=burst), processes, events, restart=not burst)
            code = asyncio.run(supervisor.run())
        raise typer.Exit(code)
    become_worker(burst=burst)
