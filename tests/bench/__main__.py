"""`python -m tests.bench`: measure, print a table, write JSON; `--smoke` shows that it runs."""

import argparse
import json
import os
import platform
import statistics
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench import loop
from worker.embedded import ValkeyServer

LIBRARIES = ("arq", "redis", "hiredis", "uvloop", "orjson")


def main() -> None:
    """Measure every row."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="little of everything, once")
    parser.add_argument("--json", type=Path, help="also write the samples to this file")
    options = parser.parse_args()
    with TemporaryDirectory() as directory, ValkeyServer(Path(directory) / "valkey") as valkey:
        machine = _machine()
        rows = loop.rows(valkey.port, loop.SMOKE if options.smoke else loop.FULL)
    _show(rows, machine)
    if options.json:
        report = {"machine": machine, "rows": [{**vars(row), "ratio": row.ratio} for row in rows]}
        options.json.write_text(json.dumps(report, indent=2))


def _machine() -> dict[str, Any]:
    return {
        "cpus": os.cpu_count(),
        "cpu": platform.processor() or platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
        **{name: version(name) for name in LIBRARIES},
    }


def _show(rows: list[loop.Row], machine: dict[str, Any]) -> None:
    table = Table(caption=", ".join(f"{name} {value}" for name, value in machine.items()))
    for heading in ("", "ours", "spread", "against", "theirs", "ratio", "target"):
        table.add_column(heading, justify="left" if heading in {"", "against"} else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{_median(row.ours)} {row.unit}",
            _spread(row.ours),
            row.against,
            _median(row.theirs),
            "" if row.ratio is None else f"{row.ratio:.2f}x",
            row.target,
        )
    Console(width=150).print(table)


def _median(samples: list[float]) -> str:
    return f"{statistics.median(samples):,.1f}" if samples else ""


def _spread(samples: list[float]) -> str:
    return f"{min(samples):,.1f} - {max(samples):,.1f}" if samples else ""


if __name__ == "__main__":
    main()
