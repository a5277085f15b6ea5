"""Run the worker until it is told to stop."""

import asyncio
import os
import sys
from typing import Annotated

import typer

from worker.app import create_worker
from worker.footprint import settle_once_started
from worker.health.gateway import gateway
from worker.settings import load_settings
from worker.supervisor import PROCESSES_MAX, Supervisor, stop_with_supervisor

app = typer.Typer(add_completion=False, help=__doc__)

Processes = Annotated[
    int, typer.Option(min=1, max=PROCESSES_MAX, help="Worker processes, restarted when they crash.")
]
Concurrency = Annotated[
    int | None, typer.Option(min=1, max=1_000, help="Jobs at a time in each process.")
]
Burst = Annotated[bool, typer.Option("--burst", help="Work off what is queued, then exit.")]


@app.command()
def run(processes: Processes = 1, concurrency: Concurrency = None, burst: Burst = False) -> None:  # noqa: FBT002 - a flag of the command line
    """Run the worker until SIGTERM drains it; a second signal hurries.

    Exit code 0 after a clean drain, 1 when a process ended badly.
    """
    if concurrency is not None:
        os.environ["TELLER_CONCURRENCY"] = str(concurrency)
    settings = load_settings()
    if processes > 1:
        command = [sys.executable, "-m", "worker", "run", *(["--burst"] if burst else [])]
        with gateway(settings, processes):
            code = asyncio.run(Supervisor(command, processes, restart=not burst).run())
        raise typer.Exit(code)
    stop_with_supervisor()
    create_worker(settings, burst=burst, subscribers=[settle_once_started]).run()
