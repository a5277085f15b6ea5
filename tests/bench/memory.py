"""What an idle worker process holds in memory: ours, and arq with SQLAlchemy.

Each is started as in production, left alone for two seconds once it says that it is up, and looked
at through /proc, so this needs Linux. Pages shared with others count in part (PSS) where the kernel
tells, in full (RSS) where it does not. Neither has run a job: arq's worker has yet to open its
first connection to PostgreSQL, ours holds its connections already.
"""

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import redis

from db.engine import create_engine
from tests.bench.loop import Row
from tests.bench.orm_transfer import CONCURRENCY, WorkerSettings
from worker.app import migrate_database

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT: Final = Path(__file__).parents[2]
PROC: Final = Path("/proc")
TARGET: Final = "<= 1.3x"
START_MAX_S: Final = 60
STOP_MAX_S: Final = 60
LOOK_EVERY_S: Final = 0.05
KIB_PER_MIB: Final = 1024


@dataclass(frozen=True)
class Effort:
    """How often to look, and how long to leave a worker alone before."""

    rounds: int
    idle_s: float


FULL = Effort(3, 2)
SMOKE = Effort(1, 0.2)


def rows(redis_url: str, database_url: str, effort: Effort) -> list[Row]:
    """Start both in turn, and compare them; no rows where there is no /proc."""
    if not PROC.joinpath("self/status").exists():
        return []
    asyncio.run(_migrate(database_url))
    runner = WorkerLauncher(redis_url, database_url, effort.idle_s)
    row = Row("memory, idle worker process", "MiB", against="arq + SQLAlchemy", target=TARGET)
    for _ in range(effort.rounds):
        row.theirs.append(runner.arq())
        row.ours.append(runner.ours())
    return [row]


class WorkerLauncher:
    """Starts a worker of either kind."""

    def __init__(self, redis_url: str, database_url: str, idle_s: float) -> None:
        self._redis_url = redis_url
        self._idle_s = idle_s
        self._health_port = _free_port()
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TELLER_LOG_LEVEL": "ERROR",
            "TELLER_HEALTH_PORT": str(self._health_port),
            "TELLER_CONCURRENCY": str(CONCURRENCY),
        }

    def ours(self) -> float:
        """Return the MiB of our worker."""
        return self._measure(["worker", "run"], self._ready)

    def arq(self) -> float:
        """Return the MiB of arq's worker with the usual engine."""
        key = f"{WorkerSettings.queue_name}:health-check"
        with redis.Redis.from_url(self._redis_url) as client:
            client.delete(key)
            settings = "tests.bench.orm_transfer.WorkerSettings"
            return self._measure(["arq", settings], lambda: bool(client.exists(key)))

    def _measure(self, module: list[str], up: "Callable[[], bool]") -> float:
        process = subprocess.Popen(
            [sys.executable, "-m", *module],
            cwd=PROJECT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            _await(process, up)
            time.sleep(self._idle_s)
            return session_mib(process.pid)
        finally:
            process.terminate()
            process.wait(STOP_MAX_S)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health_port}/readyz", timeout=5):
                return True
        except OSError:
            return False


def session_mib(session: int) -> float:
    """Return what all processes of a session hold together."""
    members = [folder for folder in PROC.glob("[0-9]*") if _session_of(folder) == session]
    return sum(_kib(folder) for folder in members) / KIB_PER_MIB


def kib(text: str, field: str) -> int:
    """Return a field of /proc's tables.

    >>> kib("Rss:  20 kB\\nPss:  12 kB\\n", "Pss")
    12
    """
    values = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return int(values[field].split()[0])


def _session_of(folder: Path) -> int | None:
    try:
        # What follows the name, which is in brackets and may hold anything.
        return int(folder.joinpath("stat").read_text().rpartition(")")[2].split()[3])
    except OSError:
        return None  # it has just ended


def _kib(folder: Path) -> int:
    try:
        return kib(folder.joinpath("smaps_rollup").read_text(), "Pss")
    except OSError:
        return kib(folder.joinpath("status").read_text(), "VmRSS")


def _await(process: "subprocess.Popen[bytes]", up: "Callable[[], bool]") -> None:
    deadline = time.monotonic() + START_MAX_S
    while not up():
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{process.args!r} is not up after {START_MAX_S} s")
        time.sleep(LOOK_EVERY_S)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


async def _migrate(database_url: str) -> None:
    engine = create_engine(database_url, pool_size=2, application_name="bench")
    await migrate_database(engine)
    await engine.dispose()
