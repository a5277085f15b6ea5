"""`python -m tests.bench`: measure beside the peers, print a table, write JSON and a picture."""

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from tests.bench import batches, follow_ups, loop, memory, peers, picture, relay, reports, transfers
from tests.bench.loop import Row
from worker.dev.servers import Stack
from worker.dev.servers.programs import postgres_binaries

LIBRARIES: Final = ("arq", "redis", "hiredis", "uvloop", "orjson", "sqlalchemy", "asyncpg")

PARTS: Final[dict[str, Callable[[Stack, bool], list[Row]]]] = {
    "loop": lambda stack, smoke: loop.rows(stack.valkey.port, loop.SMOKE if smoke else loop.FULL),
    "transfers": lambda stack, smoke: transfers.rows(
        stack.database_url, stack.redis_url, transfers.SMOKE if smoke else transfers.FULL
    ),
    "memory": lambda stack, smoke: memory.rows(
        stack.redis_url, stack.database_url, memory.SMOKE if smoke else memory.FULL
    ),
    "reports": lambda stack, smoke: reports.rows(
        stack.database_url, stack.redis_url, reports.SMOKE if smoke else reports.FULL
    ),
    "relay": lambda stack, smoke: [asyncio.run(relay.rebuilt(stack, smoke=smoke))],
    "follow-ups": lambda stack, smoke: [asyncio.run(follow_ups.chained(stack, smoke=smoke))],
    "batches": lambda stack, smoke: [asyncio.run(batches.ended(stack, smoke=smoke))],
    "peers": lambda stack, smoke: peers.rows(
        stack.redis_url, stack.database_url, peers.SMOKE if smoke else peers.FULL
    ),
}


def main() -> None:
    """Measure what was asked for."""
    options = _options()
    machine = _machine()
    rows: list[Row] = []
    for part in options.only:
        with TemporaryDirectory() as folder, Stack.start(Path(folder)) as stack:
            rows += PARTS[part](stack, options.smoke)
    _show(rows, machine)
    if options.json:
        report = {"machine": machine, "rows": [{**vars(row), "ratio": row.ratio} for row in rows]}
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    if options.picture:
        picture.draw(rows, machine, options.picture)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="little of everything, once")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=PARTS,
        metavar="PART",
        help=f"of {', '.join(PARTS)}; a smoke run leaves out peers unless they are named",
    )
    parser.add_argument("--json", type=Path, help="also write the samples to this file")
    parser.add_argument("--picture", type=Path, help="also draw the table to this SVG")
    options = parser.parse_args()
    options.only = options.only or [p for p in PARTS if not (options.smoke and p == "peers")]
    return options


def _machine() -> dict[str, Any]:
    postgres = subprocess.run(
        [postgres_binaries() / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return {
        "cpus": os.cpu_count(),
        "cpu": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": round(os.getloadavg()[0], 2),
        "PostgreSQL": postgres.stdout.split()[-1],
        **{name: version(name) for name in LIBRARIES},
    }


def _show(rows: list[Row], machine: dict[str, Any]) -> None:
    table = Table(caption=", ".join(f"{name} {value}" for name, value in machine.items()))
    for heading in ("", "ours", "spread", "against", "theirs", "spread", "ratio", "target"):
        table.add_column(heading, justify="left" if heading in {"", "against"} else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{_median(row.ours)} {row.unit}",
            _spread(row.ours),
            row.against,
            _median(row.theirs),
            _spread(row.theirs),
            "" if row.ratio is None else f"{row.ratio:.2f}x",
            row.target,
        )
    Console(width=160).print(table)


def _median(samples: list[float]) -> str:
    return f"{statistics.median(samples):,.4g}" if samples else ""


def _spread(samples: list[float]) -> str:
    return f"{min(samples):,.4g} to {max(samples):,.4g}" if len(samples) > 1 else ""


if __name__ == "__main__":
    main()
