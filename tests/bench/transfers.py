"""Whole transfers: our worker, arq with the usual ORM code, and pgbench with the same SQL.

One PostgreSQL for all, with fsync and synchronous_commit on, and 16 connections for each, however
many processes share them. arq has its own defaults, but for its 16 jobs at a time. A rate is taken
from when the first job is done until the last one is, so no start-up is in it.
"""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import redis
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from db.execution import FINISH
from jobs._wire import QueuedJob, put
from tests.bank.kit import open_account
from tests.bench.loop import Row
from tests.bench.orm_transfer import CONCURRENCY, Base
from worker.app import migrate_database
from worker.dev.servers.programs import postgres_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNTS: Final = 100
LOOK_EVERY_S: Final = 0.01
WAIT_MAX_S: Final = 300
PROJECT: Final = Path(__file__).parents[2]
WARM_UP_PART: Final = 0.05


@dataclass(frozen=True)
class Effort:
    """How much to do: everything for a table, little for a smoke run."""

    rounds: int
    jobs: int
    jobs_orm: int
    jobs_hot: int
    pgbench_s: int


FULL = Effort(5, 8_000, 1_500, 2_000, 5)
SMOKE = Effort(1, 300, 100, 100, 1)


def rows(database_url: str, redis_url: str, effort: Effort) -> list[Row]:
    """Measure every row; all take turns, so that they meet the same machine."""
    runner = TransferRunner(database_url, redis_url)
    orm = Row("transfers, 1 process", "jobs/s", against="arq + ORM, 1 process", target="4x")
    single = Row("transfers, 1 process", "jobs/s", against="pgbench", target="0.40x")
    double = Row("transfers, 2 processes", "jobs/s", against="pgbench")
    hot = Row("one hot account", "jobs/s", against="pgbench, 16 clients", target="0.8x")
    for _ in range(effort.rounds):
        orm.theirs.append(runner.orm(effort.jobs_orm))
        single.ours.append(runner.ours(effort.jobs, processes=1))
        single.theirs.append(runner.pgbench(effort.pgbench_s))
        double.ours.append(runner.ours(effort.jobs, processes=2))
        hot.theirs.append(runner.pgbench(effort.pgbench_s, hot=True))
        hot.ours.append(runner.ours(effort.jobs_hot, processes=1, hot=True))
    orm.ours, double.theirs = single.ours, single.theirs
    return [orm, single, double, hot]


class TransferRunner:
    """The database and the queue that all of them use."""

    def __init__(self, database_url: str, redis_url: str) -> None:
        self._database_url = database_url
        self._redis_url = redis_url
        self._environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "TELLER_LOG_LEVEL": "ERROR",
            "TELLER_HEALTH_PORT": "0",
        }
        self._accounts = asyncio.run(self._open())

    def ours(self, jobs: int, *, processes: int, hot: bool = False) -> float:
        """Return jobs per second through our whole worker."""
        asyncio.run(self._fill("transfer_funds", "arq:queue", jobs, hot=hot))
        command = [
            *(sys.executable, "-m", "worker", "run", "--processes", str(processes)),
            *("--concurrency", str(CONCURRENCY // processes)),
        ]
        with self._running(command):
            return self._drain_rate("arq:queue", jobs)

    def orm(self, jobs: int) -> float:
        """Return jobs per second through arq and the usual ORM transfer."""
        asyncio.run(self._fill("transfer", "bench:orm", jobs))
        command = [sys.executable, "-m", "arq", "tests.bench.orm_transfer.WorkerSettings"]
        with self._running(command):
            return self._drain_rate("bench:orm", jobs)

    def pgbench(self, seconds: int, *, hot: bool = False) -> float:
        """Return transactions per second of the same SQL, without Python or a queue."""
        script = PGBENCH.format(payer="1" if hot else ":a", finish=_finish_for_pgbench())
        command = [
            *(str(postgres_binaries() / "pgbench"), "--no-vacuum", "--protocol=prepared"),
            *(f"--client={CONCURRENCY}", "--jobs=2", f"--time={seconds}", "--file=-"),
            self._database_url,
        ]
        done = subprocess.run(
            command, input=script, capture_output=True, text=True, check=True, timeout=WAIT_MAX_S
        )
        found = re.search(r"^tps = ([\d.]+)", done.stdout, re.MULTILINE)
        if found is None:
            raise RuntimeError(done.stdout + done.stderr)
        return float(found[1])

    @contextmanager
    def _running(self, command: list[str]) -> "Iterator[None]":
        process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=self._environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)

    def _drain_rate(self, queue: str, jobs: int) -> float:
        warm = jobs * (1 - WARM_UP_PART)
        started_at = left_then = 0.0
        deadline = time.monotonic() + WAIT_MAX_S
        with redis.Redis.from_url(self._redis_url) as client:
            while (left := client.zcard(queue)) > 0:
                if not started_at and left <= warm:
                    started_at, left_then = time.monotonic(), left
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{left} jobs are left in {queue}")
                time.sleep(LOOK_EVERY_S)
        return left_then / (time.monotonic() - started_at)

    async def _open(self) -> list[uuid.UUID]:
        engine = create_engine(self._database_url, pool_size=8, application_name="bench")
        await migrate_database(engine)
        sessions = create_sessions(engine)
        accounts = [await open_account(sessions, balance="1000000.00") for _ in range(ACCOUNTS)]
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(
                text(
                    "INSERT INTO bench_wallets SELECT id, 100000000 "
                    "FROM unnest(CAST(:ids AS uuid[])) AS id"
                ),
                {"ids": accounts},
            )
            await connection.execute(
                text(
                    "CREATE TABLE bench_accounts AS SELECT * "
                    "FROM unnest(CAST(:ids AS uuid[])) WITH ORDINALITY AS a (id, n)"
                ),
                {"ids": accounts},
            )
        await engine.dispose()
        return accounts

    async def _fill(self, function: str, queue: str, jobs: int, *, hot: bool = False) -> None:
        chance = random.Random(1)
        queued = []
        for _ in range(jobs):
            payer, payee = chance.sample(self._accounts, 2)
            if hot and payee != self._accounts[0]:
                payer = self._accounts[0]
            order = {
                "from_account": str(payer),
                "to_account": str(payee),
                "amount": "1.00",
                "currency": "EUR",
            }
            queued.append(QueuedJob(str(uuid.uuid4()), function, json.dumps(order)))
        client = redis.asyncio.Redis.from_url(self._redis_url)
        await client.flushdb()
        await put(client, queued, queue)
        await client.aclose()


# Payers are 1 to 99, payees 2 to 100 and never the payer.
PGBENCH: Final = """
\\set a random(1, 99)
\\set b random(2, 100)
\\set b case when :b = {payer} then :b - 1 else :b end
BEGIN;
SELECT verdict FROM post_transfer(gen_random_uuid(),
  (SELECT id FROM bench_accounts WHERE n = {payer}),
  (SELECT id FROM bench_accounts WHERE n = :b), 100, 'EUR');
{finish};
COMMIT;
"""


def _finish_for_pgbench() -> str:
    """Return the executor's own fence with values of the usual size in place of its parameters."""
    payload = dict.fromkeys(("from_account", "to_account"), "0" * 36)
    values = {
        "$1": "gen_random_uuid()",
        "$2": "'transfer_funds'",
        "$3": f"""'{{"from_account": "{payload["from_account"]}", "amount": "1.00",
                   "to_account": "{payload["to_account"]}", "currency": "EUR"}}'""",
        "$4": "'completed'",
        "$5": f"""'{{"transfer_id": "{"0" * 36}"}}'""",
        "$6": "now()",
        "$7": "NULL",
        "$8": "'default'",
        "$9": "false",
        "$10": "0",
    }
    return re.sub(r"\$\d+", lambda match: values[match[0]], FINISH)
