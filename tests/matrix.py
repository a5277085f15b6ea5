# ruff: noqa: T201 - what it prints is what it is for
"""The tests that speak to PostgreSQL, on each version that is served: `make matrix`.

Prints a table of versions, results and seconds. `python -m tests.matrix 14 --all` runs the whole
suite on one.
"""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests import servers

ROOT = Path(__file__).parents[1]
OLDER = ("14", "15", "16", "17")  # the newest is the one that every other run is on
CHOSEN = (
    "tests/bank/test_audit.py",
    "tests/bank/test_ledger.py",
    "tests/bank/test_names.py",
    "tests/bank/test_users.py",
    "tests/db/test_connection.py",
    "tests/db/test_enqueue.py",
    "tests/db/test_migrations.py",
    "tests/db/test_own_schema.py",
    "tests/db/test_search_path.py",
    "tests/db/test_transaction.py",
    "tests/db/test_versions.py",
    "tests/worker/execution/test_executor.py",
)
LIMIT_S = 3_600
SUMMARY = re.compile(r"^=* ?(\d.*?(?:passed|failed|error).*?) in [\d.]+s", re.MULTILINE)


def main(arguments):
    """Run the versions that were asked for; return the exit code."""
    paths = (
        ["tests"] if "--all" in arguments else [path for path in CHOSEN if (ROOT / path).exists()]
    )
    majors = [argument for argument in arguments if argument.isdigit()] or OLDER
    runs = [(major, *_run(major, paths)) for major in majors]
    print(f"\n{'PostgreSQL':<12}{'result':<28}{'seconds':>8}")
    for major, code, result, seconds in runs:
        print(f"{major:<12}{'FAILED: ' * bool(code) + result:<28}{seconds:>8.0f}")
    return int(any(code for _, code, _, _ in runs))


def _run(major, paths):
    servers.postgres(int(major))
    began = time.monotonic()
    pytest = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile", "-v", *paths]
    ran = subprocess.run(
        pytest,
        cwd=ROOT,
        env=os.environ | {servers.SERVER: major},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    if ran.returncode:
        print(ran.stdout)
    found = SUMMARY.findall(ran.stdout)
    return ran.returncode, found[-1] if found else "no result", time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
