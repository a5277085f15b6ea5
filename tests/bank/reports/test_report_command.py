"""The command that builds a report says why it waits, when it cannot go on."""

import psycopg

from tests.worker.cli.commands import run_line
from worker.cli import report


def test_what_the_database_lacks_is_told_at_once(capsys, monkeypatch, tmp_path, new_database_url):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    monkeypatch.setattr(report, "TRIES_MAX", 1)
    with psycopg.connect(new_database_url) as connection:
        connection.execute("ALTER TABLE entries RENAME TO elsewhere")

    line = ["report", "trial_balance", "--format", "csv", "--to", tmp_path.as_uri()]
    answer = run_line(line, capsys, monkeypatch)

    assert (answer.code, answer.output) == (report.NOT_BUILT, "")
    assert "not yet: waits for environment:42P01, tries again in 1 s\n" in answer.errors
    assert "a worker goes on with job" in answer.errors
