"""`python -m tests.mutations`: plants each bug in a copy of the code, and expects red tests.

A suite that stays green with a bug in the code proves nothing. Exit code 0 only if the unchanged
copy is green and every mutant turns at least one test red.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.mutations.mutants import MUTANTS, Mutant, mutated
from worker.dev.servers import Stack

ROOT = Path(__file__).parents[2]
COPIED = ("worker", "jobs", "db", "tests", "docs", "pyproject.toml")
TIMEOUT_S = 300.0
FAILED = re.compile(r"^FAILED [^ ]+?::([^ \n]+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What the tests said of one copy."""

    code: int
    red: list[str]
    seconds: float
    said: str


def main() -> int:
    """Run the gate and return its exit code."""
    console = Console()
    wanted = [mutant for mutant in MUTANTS if not sys.argv[1:] or _is_named(mutant)]
    with servers(), tempfile.TemporaryDirectory(prefix="teller-mutants-") as folder:
        copy = Path(folder) / "teller"
        copy_tree(copy)
        every_test = sorted({test for mutant in wanted for test in mutant.tests})
        healthy = run_tests(copy, every_test, stop_at_first=False)
        console.print(
            f"unchanged: {'green' if healthy.code == 0 else 'RED'}, {healthy.seconds:.0f} s"
        )
        if healthy.code != 0:
            console.print(healthy.said)
            return 1
        table = Table("planted bug", "found by", "s")
        survivors = [mutant for mutant in wanted if not _is_killed(mutant, copy, table)]
        console.print(table)
    killed = len(wanted) - len(survivors)
    console.print(f"{killed} of {len(wanted)} planted bugs were found")
    return 1 if survivors else 0


def _is_named(mutant: Mutant) -> bool:
    return any(word in mutant.name for word in sys.argv[1:])


def _is_killed(mutant: Mutant, copy: Path, table: Table) -> bool:
    """Plant a bug, run its tests, take it out again."""
    file = copy / mutant.file
    healthy = file.read_text()
    try:
        file.write_text(mutated(mutant, copy))
    except LookupError as error:
        table.add_row(mutant.name, f"[red]out of date: {error}[/]", "")
        return False
    try:
        run = run_tests(copy, mutant.tests, stop_at_first=True)
    finally:
        file.write_text(healthy)
    found_by = escape(run.red[0]) if run.red else "[red]nobody[/]"
    table.add_row(mutant.name, found_by, f"{run.seconds:.0f}")
    return bool(run.red)


def run_tests(copy: Path, tests: Iterable[str], *, stop_at_first: bool) -> Run:
    """Run tests in a copy. Red is a failed test: code that cannot even run proves nothing."""
    options = ["-q", "-p", "no:cacheprovider", "-rf", *(["-x"] if stop_at_first else [])]
    started_at = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-B", "-m", "pytest", *options, *tests],
        cwd=copy,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(copy / ".hypothesis")},
    )
    seconds = time.monotonic() - started_at
    return Run(done.returncode, FAILED.findall(done.stdout), seconds, done.stdout + done.stderr)


def copy_tree(to: Path) -> None:
    """Copy what the tests need."""
    to.mkdir()
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, to / name)


@contextmanager
def servers() -> Iterator[None]:
    """Start the servers once for all mutants, unless they are given."""
    if os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"):
        yield
        return
    with (
        tempfile.TemporaryDirectory(prefix="teller-servers-") as folder,
        Stack.start(Path(folder), durable=False) as stack,
    ):
        os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = stack.database_url, stack.redis_url
        yield


if __name__ == "__main__":
    sys.exit(main())
