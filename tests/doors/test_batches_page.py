"""Every snippet of docs/batches.md does what the page says."""

import ast
import re
from pathlib import Path

import pytest
from sqlalchemy import text

from db.engine import create_engine, create_sessions
from tests.bank.kit import open_account
from tests.worker.running import running_worker

PAGE = (Path(__file__).parents[2] / "docs" / "batches.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_python_snippet_pays_and_reports(
    sessions, redis, database_url, redis_url, capsys
):
    names = {
        "redis": redis,
        "sessions": sessions,
        "payer": await open_account(sessions, "EUR", "2.00"),
        "payees": [await open_account(sessions, "EUR") for _ in range(3)],
    }
    code = compile(blocks("python")[0], "batches.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    async with running_worker(database_url, redis_url):
        await eval(code, names)
    await names["client"].aclose()

    assert "2 paid; 3 of 3 are over, it is fired" in capsys.readouterr().out


@pytest.mark.parametrize("block", blocks("sql"))
async def test_the_sql_statements_work(new_database_url, block):
    engine = create_engine(new_database_url, pool_size=1, application_name="teller-tests")
    async with create_sessions(engine)() as session:
        opened, status, cancelled = [
            (await session.execute(text(statement))).all()
            for statement in block.split(";\n")
            if statement.strip()
        ]
    await engine.dispose()

    assert len(opened) == 1
    assert tuple(status[0]) == ("open", 2, 0, 0, 0)
    assert cancelled[0][0] == 2
