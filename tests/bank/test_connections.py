"""A database out of reach is one line that says what to do (see tests/worker/cli)."""

import pytest
from typer.testing import CliRunner

from worker.__main__ import app
from worker.errors import StartupError


@pytest.mark.parametrize("line", [["demo"], ["report", "trial_balance"]], ids=" ".join)
def test_the_banks_commands_name_the_setting_too(line, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/nothing")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")

    answer = CliRunner().invoke(app, line)

    assert isinstance(answer.exception, StartupError)
    assert "cannot reach the database: check DATABASE_URL" in str(answer.exception)
