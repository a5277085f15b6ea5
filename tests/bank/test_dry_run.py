"""A dry run of a report publishes nothing (worker/execution/dry_run.py, jobs/_services.py)."""

import psycopg
from typer.testing import CliRunner

from worker.cli.jobs import command

DEAD_REPORT = """
    INSERT INTO jobs (kind, payload, state, finished_at)
    VALUES ('build_report', '{"report": "trial_balance", "format": "csv"}', 'dead', now())
    RETURNING id
"""


def test_a_dry_run_of_a_report_publishes_nothing(new_database_url, servers, monkeypatch, tmp_path):
    monkeypatch.setenv("DATABASE_URL", new_database_url)
    monkeypatch.setenv("REDIS_URL", servers[1])
    monkeypatch.setenv("TELLER_REPORTS_URL", tmp_path.as_uri())
    with psycopg.connect(new_database_url) as connection:
        row = connection.execute(DEAD_REPORT).fetchone()
    assert row is not None

    result = CliRunner().invoke(command.app, ["retry", str(row[0]), "--dry-run"])

    assert "would be completed" in result.stdout or "would be snoozed" in result.stdout
    assert list(tmp_path.rglob("*")) == []
