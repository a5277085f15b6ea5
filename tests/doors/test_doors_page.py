"""Every command and every snippet of docs/doors.md does what the page says."""

import ast
import asyncio
import os
import re
import sys
import uuid
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text

from tests.bank.kit import open_account
from tests.worker.running import running_worker
from worker.dev.servers.programs import postgres_binaries

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "doors.md").read_text(encoding="utf-8")
COMMAND_S = 60


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def environment(database_url, redis_url, tmp_path, monkeypatch):
    """A shell in an empty directory from which the project can be seen."""
    (tmp_path / "jobs").symlink_to(PROJECT / "jobs")
    monkeypatch.setenv("TELLER_REPORTS_URL", (tmp_path / "reports").as_uri())
    programs = [Path(sys.executable).parent, postgres_binaries(), os.environ["PATH"]]
    return {
        **os.environ,
        "PATH": ":".join(map(str, programs)),
        "PYTHONPATH": str(PROJECT),
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
    }


@pytest.mark.parametrize("block", blocks("sh"), ids=lambda block: block.split("\n")[0][:40])
async def test_the_shell_commands_work(block, environment, redis, tmp_path):
    for command in block.strip().splitlines():
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-euc",
            command,
            cwd=tmp_path,
            env=environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(COMMAND_S):
            output, _ = await process.communicate()
        assert process.returncode == 0, f"{command}\n{output.decode()}"


async def test_the_sql_statements_work(database_url, redis):
    connection = await asyncpg.connect(database_url)
    (block,) = blocks("sql")
    enqueued, scheduled, looked_up, cancelled = [
        await connection.fetchval(statement) for statement in block.strip().splitlines()
    ]
    await connection.close()

    assert isinstance(enqueued, uuid.UUID)
    assert isinstance(scheduled, uuid.UUID)
    assert looked_up == "queued"
    assert cancelled is True


async def execute(code, names):
    compiled = compile(code, "doors.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    made = eval(compiled, names)
    if made is not None:
        await made


async def test_the_python_snippet_moves_money(
    environment, teller_jobs, sessions, redis, redis_url, database_url, capsys
):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))  # the SQL example has the same key
    names = {
        "REDIS_URL": redis_url,
        "sessions": sessions,
        "buyer": await open_account(sessions, "EUR", "20"),
        "shop": await open_account(sessions, "EUR"),
    }
    async with running_worker(database_url, redis_url):
        await execute(blocks("python")[0], names)
    await names["client"].aclose()
    await names["redis"].aclose()

    assert f"paid by {names['job'].id}" in capsys.readouterr().out


async def test_the_arq_snippet_enqueues(redis, redis_url, capsys):
    names = {"REDIS_URL": redis_url}
    await execute(blocks("python")[1], names)
    await names["pool"].aclose()

    assert "queued" in capsys.readouterr().out


async def test_the_kind_of_which_the_newest_wins_is_what_the_page_says():
    names = {}
    await execute(blocks("python")[2], names)
    policy = names["refresh_search"].policy

    assert (policy.replace, policy.unique_for) == (True, timedelta(minutes=10))


def test_no_block_is_left_out():
    languages = set(re.findall(r"```([a-z]+)\n", PAGE))

    assert languages <= {"sh", "sql", "python", "js"}  # js: test_other_languages.py
