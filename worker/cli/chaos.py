"""Break everything on purpose while money moves, then prove that nothing was lost or doubled."""

import logging
import os
import shutil
from typing import TYPE_CHECKING, Annotated, Final

import typer
import uvloop
from rich.console import Console

from worker.cli._faults import explaining_servers
from worker.cli._options import UsageError, command_line
from worker.dev.chaos import KINDS, Options, Summary, UnknownFaultError, find, run, show
from worker.dev.chaos.doors import BrokenPromiseError
from worker.dev.chaos.sites import Site, refuse_production, site
from worker.process.supervisor import PROCESSES_MAX

if TYPE_CHECKING:
    from worker.dev.chaos.faults import Kind

app = command_line()

WRONG: Final = 1
JOBS_PER_FAULT: Final = 100
GROUPS: Final = tuple(dict.fromkeys(kind.group for kind in KINDS.values()))
ALL_KINDS: Final = ",".join(GROUPS)

Seed = Annotated[int, typer.Option(help="The same seed, the same faults and transfers.")]
Jobs = Annotated[int, typer.Option(min=1, max=10_000_000, help="Transfers to make meanwhile.")]
Faults = Annotated[
    str,
    typer.Option(
        help="Kinds of fault, separated by commas. `poison` and `garbage` are all of their sorts, "
        "`poison:segfault` is one."
    ),
]
Count = Annotated[
    int | None, typer.Option(min=0, help="How many faults; default: one for every 100 jobs.")
]
Processes = Annotated[int, typer.Option(min=2, max=PROCESSES_MAX, help="Worker processes.")]
Concurrency = Annotated[int, typer.Option(min=1, max=1_000, help="Jobs at a time in each.")]


@app.command()
def chaos(  # noqa: PLR0913 - the options of a command line
    *,
    seed: Seed = 1,
    jobs: Jobs = 2_000,
    faults: Faults = ALL_KINDS,
    count: Count = None,
    processes: Processes = 3,
    concurrency: Concurrency = 8,
) -> None:
    """Move money while workers and servers are killed and restarted.

    Without DATABASE_URL and REDIS_URL it starts servers of its own. Given servers must be marked
    as tests': by a database name that ends with `_test` or `_chaos`, and in Redis by the key
    `teller:may-be-flushed`. Exit code 0 only if nothing was lost, doubled or left behind.
    """
    # A Redis that does not answer is part of the plan here.
    logging.getLogger("jobs.client").setLevel(logging.ERROR)
    console = Console()
    options = Options(
        seed=seed,
        jobs=jobs,
        kinds=_kinds(faults),
        faults=max(1, jobs // JOBS_PER_FAULT) if count is None else count,
        processes=processes,
        concurrency=concurrency,
    )
    urls = os.environ.get("DATABASE_URL"), os.environ.get("REDIS_URL")
    with site(*urls) as place, explaining_servers():
        try:
            summary = uvloop.run(_run(place, options, console))
        except BrokenPromiseError as error:
            console.print(f"[bold red]{error}[/]")
            raise typer.Exit(WRONG) from None
    show(summary, console)
    if summary.faults:
        console.print(f"the workers' logs are in {place.directory}", soft_wrap=True)
        raise typer.Exit(WRONG)
    shutil.rmtree(place.directory, ignore_errors=True)


async def _run(place: Site, options: Options, console: Console) -> Summary:
    await refuse_production(place)
    return await run(place, options, console)


def _kinds(names: str) -> "list[Kind]":
    try:
        kinds = find(name.strip() for name in names.split(",") if name.strip())
    except UnknownFaultError as error:
        raise UsageError(str(error)) from None
    if not kinds:
        raise UsageError("--faults names no fault; for none of them, give --count 0")
    return kinds
