"""Enqueue one job, or a file of them."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from worker.cli._options import UsageError, command_line, parse_duration, parse_time
from worker.cli.enqueue.file import enqueue_file
from worker.cli.enqueue.one_job import enqueue_one, payload_of

app = command_line()

KindArgument = Annotated[str | None, typer.Argument(help="The kind of job; see docs/jobs.md.")]
PayloadArgument = Annotated[
    str | None, typer.Argument(metavar="JSON", help="Its payload; - reads it from standard input.")
]
Key = Annotated[
    str | None, typer.Option(help="The same key and payload is the same job, however often.")
]
RunAt = Annotated[
    str | None, typer.Option(help="Not before this time, as 2026-01-31T09:00:00+01:00.")
]
Delay = Annotated[str | None, typer.Option(help="Not before so long from now: 90s, 5m, 2h, 1d.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the job's end and print its answer.")]
File = Annotated[
    str | None,
    typer.Option(help='JSON lines, {"kind": …, "payload": {…}}; - reads standard input.'),
]
Batch = Annotated[
    str | None,
    typer.Option(help="A name for the file's jobs; default: the file's. Another name, other jobs."),
]
Rejects = Annotated[
    Path | None, typer.Option(help="Write every bad line, with its reason, to this file.")
]


@app.command()
def enqueue(  # noqa: PLR0913 - the options of a command line
    kind: KindArgument = None,
    payload: PayloadArgument = None,
    *,
    key: Key = None,
    run_at: RunAt = None,
    delay: Delay = None,
    wait: Wait = False,
    file: File = None,
    batch: Batch = None,
    rejects: Rejects = None,
) -> None:
    """Enqueue KIND with JSON, or every line of --file.

    A line is `{"kind": …, "payload": {…}}` with, if wanted, "key" and "run_at". Running the same
    file again enqueues nothing new: a line without a key gets one from the batch's name and its
    content. Two equal lines are two jobs.
    """
    if file is not None:
        if kind or payload or key or run_at or delay or wait:
            raise UsageError("--file takes kind, payload, key and run_at from its lines")
        raise typer.Exit(asyncio.run(enqueue_file(file, batch, rejects)))
    if kind is None or payload is None or batch or rejects:
        raise UsageError("give KIND and JSON, or --file; see --help")
    request = payload_of(kind, payload)
    raise typer.Exit(asyncio.run(enqueue_one(request, key, _due(run_at, delay), wait=wait)))


def _due(run_at: str | None, delay: str | None) -> datetime | None:
    if run_at is not None and delay is not None:
        raise UsageError("give --run-at or --delay, not both")
    if delay is not None:
        return datetime.now(UTC) + parse_duration(delay, "--delay")
    return None if run_at is None else parse_time(run_at, "--run-at")
