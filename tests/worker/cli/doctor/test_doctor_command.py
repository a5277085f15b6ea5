"""`worker doctor` on real servers: healthy, not migrated, refused, and gone."""

import asyncio
import json

import pytest
from sqlalchemy import make_url, text
from typer.testing import CliRunner

from db.engine import create_engine
from worker.cli.doctor import command

SECRET = "correct-horse-battery-staple"


@pytest.fixture
def examine(monkeypatch, new_database_url, redis_url):
    """Run the command; by default everything is well."""

    def run(database_url=new_database_url, redis_at=redis_url):
        monkeypatch.setenv("DATABASE_URL", database_url)
        monkeypatch.setenv("REDIS_URL", redis_at)
        result = CliRunner().invoke(command.app, ["--json"])
        return result, {(one["part"], one["subject"]): one for one in json.loads(result.stdout)}

    return run


def problems(found):
    return {where for where, one in found.items() if one["severity"] == "PROBLEM"}


def test_what_runs_the_tests_is_healthy_but_for_what_makes_them_fast(examine):
    result, found = examine()

    assert problems(found) <= {("PostgreSQL", "durability")}
    assert found["PostgreSQL", "pooler"]["found"] == "none"
    assert found["PostgreSQL", "tables"]["found"] == "current, in public"
    assert result.exit_code in {0, 1, 2}


def test_a_database_that_is_not_migrated_is_told(examine, empty_database_url):
    result, found = examine(database_url=empty_database_url)

    assert ("PostgreSQL", "tables") in problems(found)
    assert "python -m worker migrate" in found["PostgreSQL", "tables"]["advice"]
    assert result.exit_code == 2


@pytest.mark.parametrize("part", ["PostgreSQL", "Redis"])
def test_a_server_that_is_gone_is_told_and_the_rest_is_looked_at(examine, part):
    gone = {
        "PostgreSQL": {"database_url": f"postgresql://u:{SECRET}@127.0.0.1:1/x"},
        "Redis": {"redis_at": f"redis://:{SECRET}@127.0.0.1:1"},
    }[part]

    result, found = examine(**gone)

    assert (part, "answers") in problems(found)
    assert ("here", "Python") in found
    assert SECRET not in result.output
    assert result.exit_code == 2


def test_rights_that_the_role_lacks_are_told_by_table(examine, new_database_url):
    async def do(*statements):
        owner = create_engine(new_database_url, pool_size=1, application_name="owner")
        async with owner.begin() as connection:
            for statement in statements:
                await connection.execute(text(statement))
        await owner.dispose()

    asyncio.run(
        do(
            "CREATE ROLE examined LOGIN",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO examined",
            "REVOKE UPDATE ON jobs FROM examined",
        )
    )
    url = make_url(new_database_url).set(username="examined", password=None)
    try:
        _, found = examine(database_url=url.render_as_string(hide_password=False))
    finally:
        asyncio.run(do("DROP OWNED BY examined", "DROP ROLE examined"))

    assert found["PostgreSQL", "rights"]["found"] == "jobs: UPDATE"
    assert ("PostgreSQL", "rights") in problems(found)
