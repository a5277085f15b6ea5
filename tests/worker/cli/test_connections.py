"""A database out of reach is one line that says what to do, whichever command needs it."""

import pytest
from typer.testing import CliRunner

from worker.__main__ import app
from worker.errors import StartupError


@pytest.mark.parametrize(
    "line",
    [
        ["audit"],
        ["compat", "--live"],
        ["enqueue", "purge_record", "{}"],
        ["jobs", "cancel", "--all"],
        ["jobs", "list"],
        ["jobs", "retry", "--all", "--dry-run"],
        ["jobs", "show", "an-id"],
        ["migrate"],
        ["schedules"],
    ],
    ids=" ".join,
)
def test_every_command_names_the_setting_of_a_database_that_it_cannot_reach(line, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    answer = CliRunner().invoke(app, line)

    assert isinstance(answer.exception, StartupError)
    assert "cannot reach the database: check DATABASE_URL" in str(answer.exception)
