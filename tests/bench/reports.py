"""A long statement as CSV beside `psql \\copy` of the same query: its time, and its memory.

Ours is the whole command, from an idle start: `python -m worker report`. What a statement of one
entry takes is taken off, since that is start-up. Memory is the process's highest point above that.
"""

import asyncio
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from uuid import UUID

from sqlalchemy import text

from db.bank.ledger import OPEN_WORLD_ACCOUNTS
from db.bank.reports.queries import COPY_STATEMENT
from db.engine import create_engine, create_sessions
from db.transaction import MOVE_LIMITS
from tests.bank.kit import open_account
from tests.bench.loop import Row
from worker.app import migrate_database
from worker.dev.servers.programs import postgres_binaries

PROJECT: Final = Path(__file__).parents[2]
COMMAND_MAX_S: Final = 300
KIB_PER_MIB: Final = 1024

# Straight into the tables: posting a million transfers one by one would take minutes.
FILL: Final = (
    """INSERT INTO transfers (id, from_account, to_account, amount, currency, posted_at)
       SELECT md5('bench' || n)::uuid, world_account_id('EUR'), :account, 100, 'EUR',
              timestamptz '2026-01-01 00:00Z' + n * interval '10 seconds'
       FROM generate_series(1, :entries) AS n""",
    """INSERT INTO entries
       SELECT :account, n, md5('bench' || n)::uuid, 100, n * 100,
              timestamptz '2026-01-01 00:00Z' + n * interval '10 seconds'
       FROM generate_series(1, :entries) AS n""",
    "UPDATE accounts SET balance = :entries * 100, version = :entries WHERE id = :account",
)


@dataclass(frozen=True)
class Effort:
    """How much to do: everything for a table, little for a smoke run."""

    rounds: int
    entries: int


FULL = Effort(3, 1_000_000)
SMOKE = Effort(1, 2_000)


def rows(database_url: str, redis_url: str, effort: Effort) -> list[Row]:
    """Measure time and memory; ours and psql take turns."""
    environment = {**os.environ, "DATABASE_URL": database_url, "REDIS_URL": redis_url}
    name = f"statement of {effort.entries:,} entries as CSV"
    took = Row(name, "s", against="psql \\copy", target="<= 3x")
    memory = Row(f"{name}, memory", "MiB", against="", target="<= 64 MiB")
    small, large = asyncio.run(_accounts(database_url, effort.entries))
    for _ in range(effort.rounds):
        start_s, start_kib = _report(small, 1, environment)
        all_s, all_kib = _report(large, effort.entries, environment)
        took.ours.append(all_s - start_s)
        memory.ours.append((all_kib - start_kib) / KIB_PER_MIB)
        took.theirs.append(_copy(large, effort.entries, database_url))
    return [took, memory]


async def _accounts(database_url: str, entries: int) -> tuple[UUID, UUID]:
    """Return an account of one entry and one of many."""
    engine = create_engine(database_url, pool_size=2, application_name="teller-bench")
    await migrate_database(engine)
    sessions = create_sessions(engine)
    small, large = await open_account(sessions), await open_account(sessions)
    async with sessions() as session, session.begin():
        await session.execute(text("SELECT set_config('statement_timeout', '0', true)"))
        await session.execute(text(MOVE_LIMITS), {"limit_ms": "0"})
        await session.execute(OPEN_WORLD_ACCOUNTS, {"currencies": ["EUR"], "exponents": [2]})
        await session.execute(
            text("SELECT post_transfer(new_id(), world_account_id('EUR'), :account, 1, 'EUR')"),
            {"account": small},
        )
        driver = (await (await session.connection()).get_raw_connection()).driver_connection
        for statement in FILL:
            literal = statement.replace(":account", f"'{large}'").replace(":entries", str(entries))
            await driver.execute(literal)  # type: ignore[union-attr]
        await driver.execute("ANALYZE entries, transfers")  # type: ignore[union-attr]
    await engine.dispose()
    return small, large


def _report(account: UUID, entries: int, environment: dict[str, str]) -> tuple[float, int]:
    """Return how long the command took, in seconds, and its highest memory, in KiB."""
    with TemporaryDirectory() as folder:
        target = Path(folder).as_uri()
        command = [
            *(sys.executable, "-m", "worker", "report", "account_statement", "--format", "csv"),
            *("--account", str(account), "--to", target),
        ]
        started_at = time.perf_counter()
        process = subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{command!r} ended with {process.returncode}")
        elapsed_s = time.perf_counter() - started_at
        [report] = Path(folder).rglob("*.csv")
        with report.open("rb") as lines:
            if sum(line.startswith(b"entry,") for line in lines) != entries:
                raise RuntimeError(f"the report has not {entries} entries")
        return elapsed_s, usage.ru_maxrss


def _copy(account: UUID, entries: int, database_url: str) -> float:
    """Return how long psql takes for the same rows, in seconds."""
    values = {"$1": "true", "$2": f"'{account}'", "$3": "1", "$4": str(entries), "$5": "0.01"}
    query = re.sub(r"\$\d", lambda match: values[match[0]], COPY_STATEMENT)
    one_line = " ".join(query.split())
    with TemporaryDirectory() as folder:
        copy = f"\\copy ({one_line}) TO '{folder}/rows.csv' WITH (FORMAT csv)"
        started_at = time.perf_counter()
        subprocess.run(
            [str(postgres_binaries() / "psql"), "-q", "-c", copy, database_url],
            check=True,
            timeout=COMMAND_MAX_S,
        )
        return time.perf_counter() - started_at
