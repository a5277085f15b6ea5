"""`python -m tests.fuzz`: hostile messages before a whole worker, on servers of its own.

Exit code 0 only if every message had its end, every healthy job was done in time and once, and
nothing was left behind. `--seed` draws the same messages again.
"""

import argparse
import asyncio
import logging
import secrets
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from db.engine import create_engine
from tests.fuzz.run import HEALTHY_S, Result, run
from tests.letters import add_samples
from worker.app import migrate_database
from worker.dev.servers import Stack


def main() -> int:
    """Run the fuzz and return its exit code."""
    options = _options()
    console = Console()
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    console.print(
        f"seed {seed}: `python -m tests.fuzz --messages {options.messages} --seed {seed}`"
    )
    logging.disable()  # a line for every message would hide the figures
    began = time.monotonic()
    shown: list[str] = []

    def progress(done: int, result: Result) -> None:
        took_s = time.monotonic() - began
        console.print(
            f"{done:>8,} messages, {done / took_s:5.0f}/s, {len(result.faults)} faults, "
            f"{len(result.healthy_s):,} healthy jobs, slowest {max(result.healthy_s):.2f} s"
        )
        for fault in result.faults[len(shown) :]:
            shown.append(fault)
            console.print(fault, markup=False)

    with (
        TemporaryDirectory(prefix="teller-fuzz-") as folder,
        Stack.start(Path(folder), durable=False) as stack,
        # Drawing takes as long as working off: it has a process of its own.
        ProcessPoolExecutor(1, get_context("spawn")) as executor,
    ):
        asyncio.run(_migrate(stack.database_url))
        result = asyncio.run(
            run(
                stack.database_url,
                stack.redis_url,
                messages=options.messages,
                seed=seed,
                batch=options.batch,
                healthy_s=options.deadline,
                executor=executor,
                progress=progress,
            )
        )
    _show(result, console, time.monotonic() - began, options.deadline)
    return 1 if result.faults else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--messages", type=int, default=110_000)
    parser.add_argument("--seed", type=int, help="drawn at random where it is not given")
    parser.add_argument("--batch", type=int, default=500, help="messages that are planted at once")
    parser.add_argument(
        "--deadline", type=float, default=HEALTHY_S, help="seconds for a healthy job"
    )
    return parser.parse_args()


async def _migrate(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=2, application_name="teller-fuzz")
    await migrate_database(engine)
    async with engine.begin() as connection:
        await add_samples(connection)
    await engine.dispose()


def _show(result: Result, console: Console, took_s: float, deadline_s: float) -> None:
    ends = [end for end, _ in result.totals.most_common()]
    table = Table("what is odd", *ends)
    for label in sorted(result.ends):
        table.add_row(label, *(_figure(result.ends[label][end]) for end in ends))
    table.add_section()
    table.add_row("messages", *(f"{result.totals[end]:,}" for end in ends))
    console.print(table)
    healthy = sorted(result.healthy_s)
    console.print(
        f"{result.messages:,} messages in {took_s:.0f} s; {len(healthy):,} healthy jobs, "
        f"median {healthy[len(healthy) // 2]:.3f} s, slowest {healthy[-1]:.2f} s "
        f"(deadline {deadline_s:.0f} s)"
    )
    console.print(
        f"at most {result.keys_max} shared keys, {result.quarantine_max:,} in the quarantine, "
        f"{result.aborts_max:,} aborts; events: {dict(sorted(result.events.items()))}"
    )
    console.print(f"{len(result.faults)} faults")


def _figure(count: int) -> str:
    return f"{count:,}" if count else ""


if __name__ == "__main__":
    sys.exit(main())
