"""Whoever waits at a terminal sees that a long command works, and what it waits for."""

import asyncio
import threading

import psycopg
import pytest

from tests.worker.cli.commands import run_line
from worker.cli import _alive
from worker.cli._alive import still_working
from worker.cli.enqueue import one_job
from worker.errors import tell

DEADLINE_S = 30


@pytest.fixture
def terminal(monkeypatch):
    """Have standard error be a terminal, and told often; yields an event of the first line."""
    told = threading.Event()

    def note(line):
        tell(line)
        told.set()

    monkeypatch.setattr(_alive, "INTERVAL_S", 0.05)
    monkeypatch.setattr(_alive, "tell", note)
    monkeypatch.setattr(_alive, "is_watched", lambda: True)
    return told


async def test_a_long_block_says_how_long_and_what_it_waits_for(capsys, terminal):
    async with asyncio.timeout(DEADLINE_S), still_working(lambda: "a bus"):
        await asyncio.to_thread(terminal.wait, DEADLINE_S)

    assert capsys.readouterr().err.startswith("still working, 0 s: a bus\n")


async def test_it_says_nothing_where_nobody_looks(capsys, monkeypatch):
    monkeypatch.setattr(_alive, "INTERVAL_S", 0.0)
    async with still_working(lambda: "a bus"):
        for _ in range(100):
            await asyncio.sleep(0)

    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("line", "locked", "said"),
    [
        (["audit"], "occurrences, jobs", "the count of jobs"),
        (["migrate"], "job_kinds", "a change of the schema"),
    ],
)
def test_a_command_that_waits_for_a_lock_shows_life(
    line, locked, said, capsys, monkeypatch, terminal, new_database_url
):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with psycopg.connect(new_database_url) as holder:
        holder.execute(f"LOCK TABLE {locked} IN ACCESS EXCLUSIVE MODE")

        def let_go():
            terminal.wait(DEADLINE_S)
            holder.rollback()

        releasing = threading.Thread(target=let_go)
        releasing.start()
        answer = run_line(line, capsys, monkeypatch)
        releasing.join(DEADLINE_S)

    assert answer.code == 0, answer
    assert said in answer.errors


def test_a_job_that_is_waited_for_shows_life(capsys, monkeypatch, terminal, new_database_url):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(one_job, "WAIT_MAX_S", 1.0)

    answer = run_line(["enqueue", "purge_record", "{}", "--wait"], capsys, monkeypatch)

    assert answer.code == 2
    assert f"the end of job {answer.output.split()[0]}" in answer.errors
