"""`python -m tests.bench.peer_programs.fill PROGRAM JOBS`: put no-ops into a peer's queue."""

import asyncio
import importlib
import inspect
import sys


def main(program: str, jobs: int) -> None:
    """Call the program's own `fill`, whether it is a coroutine or not."""
    filled = importlib.import_module(program).fill(jobs)
    if inspect.iscoroutine(filled):
        asyncio.run(filled)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
