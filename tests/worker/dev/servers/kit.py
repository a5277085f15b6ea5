"""What the tests of the embedded servers share: an owner to kill, and waits with a deadline."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

from worker.dev.servers.processes import is_alive
from worker.dev.servers.programs import postgres_binaries

ROOT = Path(__file__).parents[4]
DEADLINE_S = 20.0

# Starts the class of that name in that directory, runs a line, says who is who, and waits.
OWNER = """
import json, os, sys
from pathlib import Path
from worker.dev import servers

name, directory, then = sys.argv[1:]
server = getattr(servers, name)(Path(directory))
server.start()
exec(then)
print(json.dumps([server.pid, server._process._reaper.pid]), flush=True)
sys.stdin.read()
"""


@dataclass
class Owner:
    """Another Python process that holds a server."""

    process: subprocess.Popen[bytes]
    server: int
    reaper: int

    def kill(self) -> None:
        os.kill(self.process.pid, SIGKILL)
        self.process.wait(DEADLINE_S)


@contextmanager
def owner(name: str, directory: Path, then: str = "") -> Iterator[Owner]:
    command = [sys.executable, "-c", OWNER, name, str(directory), then]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, bufsize=0
    )
    with process:
        try:
            assert process.stdout
            yield Owner(process, *json.loads(process.stdout.readline()))
        finally:
            with suppress(ProcessLookupError):
                process.kill()


def eventually(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s in vain: {what}"
        time.sleep(0.01)


def eventually_gone(pid: int) -> None:
    eventually(lambda: not is_alive(pid), f"process {pid} to end")


def sql(url: str, statement: str) -> str:
    """What psql prints for a statement, in a connection of its own."""
    psql = [str(postgres_binaries() / "psql"), "--no-psqlrc", "--quiet", "--tuples-only"]
    reply = subprocess.run(
        [*psql, "--no-align", "--set=ON_ERROR_STOP=1", f"--command={statement}", url],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert reply.returncode == 0, reply.stderr
    return reply.stdout.strip()
