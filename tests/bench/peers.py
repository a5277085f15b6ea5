"""Our loop beside other Python job queues, each in an environment of its own, made on demand.

The rules, the same for all:

- One worker process, 64 jobs at once (threads for Dramatiq and Celery), started with the peer's own
  command and, but for the rest of these rules, its own settings and serializer.
- A job is acknowledged after it has run, so that a crash loses none: what arq and we do.
- Nobody keeps results.
- Nobody writes a line of log for each job. Who can use hiredis or uvloop has it.
- All jobs wait in the queue before the worker starts. A peer's rate is taken inside its process, by
  its own jobs, from the twentieth part of them to the last: no start-up, no warm-up, no wait for
  the last acknowledgements. Ours is taken from the end of start-up until everything is settled.
- The same Valkey for all and, for Procrastinate, the PostgreSQL beside it, with fsync on.
- All take turns within a round, ours first, on a database that was emptied before.

The environments stay in `.teller/bench/`. A peer that cannot be installed, or does not run, has a
row that says so.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import psycopg
import redis

from tests.bench import loop
from tests.bench.loop import CONCURRENCY, Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PROJECT: Final = Path(__file__).parents[2]
ENVIRONMENTS: Final = PROJECT / ".teller" / "bench"
PROGRAMS: Final = "tests.bench.peer_programs"
DATABASE: Final = "bench_peers"
TARGET: Final = "5x"
INSTALL_MAX_S: Final = 180
FILL_MAX_S: Final = 60
DRAIN_MAX_S: Final = 60
LOOK_EVERY_S: Final = 0.05
KEEP_NO_RESULT_S: Final = 0


@dataclass(frozen=True)
class Peer:
    """A job queue: what it is installed from, itself first, and how its worker is started."""

    name: str
    packages: tuple[str, ...]
    program: str
    worker: str
    part: float = 1  # of the jobs that others get, where that many would take too long

    @property
    def title(self) -> str:
        """Return name and version."""
        return f"{self.name} {self.packages[0].partition('==')[2]}"


# Every version there is to change, in one place.
PEERS: Final = (
    Peer(
        "SAQ",
        (
            *("saq==0.26.4", "redis==7.4.1", "hiredis==3.5.0", "uvloop==0.23.0"),
            "typing_extensions==4.16.0",  # it imports it without asking for it
        ),
        "saq_noop",
        "saq {program}.settings",
    ),
    Peer(
        "taskiq",
        (
            *("taskiq==0.13.0", "taskiq-redis==1.2.4"),
            *("redis==8.1.0", "hiredis==3.5.0", "uvloop==0.23.0"),
        ),
        "taskiq_noop",
        "taskiq worker {program}:broker --workers 1 --max-async-tasks {concurrency} "
        "--log-level WARNING",
    ),
    Peer(
        "streaQ",
        ("streaq==7.2.0", "coredis==6.9.0", "uvloop==0.23.0"),
        "streaq_noop",
        "streaq run {program}:worker",
    ),
    Peer(
        "Dramatiq",
        ("dramatiq==2.2.1", "redis==8.1.0", "hiredis==3.5.0"),
        "dramatiq_noop",
        "dramatiq {program} --processes 1 --threads {concurrency}",
    ),
    Peer(
        "Celery",
        (
            *("celery==5.7.0", "kombu==5.7.0", "redis==8.1.0", "hiredis==3.5.0"),
            "packaging==25.0",  # kombu imports it without asking for it
        ),
        "celery_noop",
        "celery -A {program} worker --pool threads --concurrency {concurrency} --loglevel WARNING",
    ),
    Peer(
        "Procrastinate",
        ("procrastinate==3.10.0", "psycopg==3.3.9", "psycopg-binary==3.3.9"),
        "procrastinate_noop",
        "procrastinate --app {program}.app --log-level warning worker "
        "--concurrency {concurrency} --delete-jobs successful",
        part=0.25,
    ),
)


@dataclass(frozen=True)
class Effort:
    """How much to do: everything for a table, little for a smoke run."""

    rounds: int
    jobs: int
    jobs_ours: int


FULL = Effort(3, 6_000, 40_000)
SMOKE = Effort(1, 200, 2_000)


class PeerError(Exception):
    """Why a peer has no figure; short enough for a table."""


def rows(redis_url: str, database_url: str, effort: Effort) -> list[Row]:
    """Measure ours and every peer in turn; the target stands in the row of the fastest."""
    runner = PeerRunner(redis_url, database_url)
    ours: list[float] = []
    table = {peer: Row("no-op jobs, one process", "jobs/s", ours=ours) for peer in PEERS}
    absent: dict[Peer, str] = {}
    for _ in range(effort.rounds):
        ours.append(runner.ours(effort.jobs_ours))
        for peer in PEERS:
            if peer in absent:
                continue
            try:
                table[peer].theirs.append(runner.peer(peer, max(1, int(effort.jobs * peer.part))))
            except PeerError as error:
                absent[peer] = str(error)
    runner.close()
    for peer, row in table.items():
        row.against = f"{peer.title} ({absent[peer]})" if peer in absent else peer.title
    aim_at_fastest(list(table.values()))
    return list(table.values())


def aim_at_fastest(table: list[Row]) -> None:
    """Set the target where it is hardest to reach."""
    measured = [row for row in table if row.theirs]
    if measured:
        max(measured, key=lambda row: median(row.theirs)).target = TARGET


class PeerRunner:
    """The queue and the database that all of them use."""

    def __init__(self, redis_url: str, database_url: str) -> None:
        self._redis_url = redis_url
        self._redis_port = urlsplit(redis_url).port or 6379
        self._admin_url = database_url
        self._database_url = urlsplit(database_url)._replace(path=f"/{DATABASE}").geturl()

    def ours(self, jobs: int) -> float:
        """Return jobs per second of our loop."""
        loop._call(loop._fill, self._redis_port, jobs)
        rate = loop._call(loop._drain_rate, self._redis_port, "ours", jobs, 0, KEEP_NO_RESULT_S)
        return float(rate)

    def peer(self, peer: Peer, jobs: int) -> float:
        """Return jobs per second of a peer, or raise `PeerError`."""
        folder = ENVIRONMENTS / peer.program
        python = environment(folder, peer.packages)
        report, log = folder / "report", folder / "log"
        report.unlink(missing_ok=True)
        names = {"program": f"{PROGRAMS}.{peer.program}", "concurrency": str(CONCURRENCY)}
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PYTHON")},
            "REDIS_URL": self._redis_url,
            "DATABASE_URL": self._database_url,
            "BENCH_JOBS": str(jobs),
            "BENCH_REPORT": str(report),
        }
        self._empty()
        fill = [str(python), "-m", f"{PROGRAMS}.fill", names["program"], str(jobs)]
        with _running(fill, variables, log) as process:
            if _wait(process, FILL_MAX_S) != 0:
                raise PeerError(f"could not enqueue: {_last_line(log)}")
        self._settle()
        worker = [str(python), "-m", *peer.worker.format(**names).split()]
        with _running(worker, variables, log) as process:
            _await_report(process, report, log)
        return rate(report.read_text())

    def close(self) -> None:
        """Leave nothing behind in the database."""
        with psycopg.connect(self._admin_url, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")

    def _empty(self) -> None:
        with redis.Redis.from_url(self._redis_url) as client:
            client.flushall()
        self.close()
        with psycopg.connect(self._admin_url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {DATABASE}")

    def _settle(self) -> None:
        """Wait until Valkey has compacted its log, which takes a core while it lasts."""
        with redis.Redis.from_url(self._redis_url) as client:
            while client.info("persistence")["aof_rewrite_in_progress"]:
                time.sleep(LOOK_EVERY_S)


def environment(folder: Path, packages: tuple[str, ...]) -> Path:
    """Return the Python that has these packages; make it when there is none, or another one."""
    python, made_of = folder / "venv" / "bin" / "python", folder / "packages.json"
    wanted = json.dumps(packages)
    if made_of.exists() and made_of.read_text() == wanted and python.exists():
        return python
    folder.mkdir(parents=True, exist_ok=True)
    made_of.unlink(missing_ok=True)  # until it is whole
    install = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    steps = [
        [sys.executable, "-m", "venv", "--clear", str(python.parents[1])],
        [*install, "--prefer-binary", *packages],
    ]
    # What pip says may name the registry's host, which belongs in nobody's table: it stays in here.
    with (folder / "install.log").open("w") as log:
        for step in steps:
            try:
                subprocess.run(
                    step, stdout=log, stderr=log, check=True, timeout=INSTALL_MAX_S, cwd=folder
                )
            except (OSError, subprocess.SubprocessError):
                raise PeerError("could not be installed") from None
    made_of.write_text(wanted)
    return python


def rate(report: str) -> float:
    """Return jobs per second from the two lines that a peer's jobs wrote.

    >>> rate("50 10.0\\n1000 10.5\\n")
    1900.0
    """
    (number, begun), (last, ended) = sorted(
        (int(number), float(moment)) for number, moment in map(str.split, report.splitlines())
    )
    return (last - number) / (ended - begun)


@contextmanager
def _running(
    command: "Sequence[str]", variables: dict[str, str], log: Path
) -> "Iterator[subprocess.Popen[bytes]]":
    """Run a command and its children, and end all of them; nothing they hold is wanted any more."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", timeout_s: float) -> int:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        raise PeerError(f"did not end within {timeout_s} s") from None


def _await_report(process: "subprocess.Popen[bytes]", report: Path, log: Path) -> None:
    deadline = time.monotonic() + DRAIN_MAX_S
    while not report.exists() or report.read_text().count("\n") < 2:
        if process.poll() is not None:
            raise PeerError(f"did not run: {_last_line(log)}")
        if time.monotonic() > deadline:
            raise PeerError(f"was not done within {DRAIN_MAX_S} s")
        time.sleep(LOOK_EVERY_S)


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").split("\n")
    return next((line.strip()[:60] for line in reversed(lines) if line.strip()), "no word")
