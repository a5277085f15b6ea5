"""The tutorial does what it says, on a copy of this project."""

import os
import subprocess
import sys

import pytest

from tests import tutorial

COMMAND_TIMEOUT_S = 100


@pytest.fixture
def project(tmp_path):
    tutorial.copy_project(tmp_path)
    tutorial.write_files(tmp_path)
    tutorial.apply_changes(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_reader_who_follows_it_has_an_invoice_and_its_reminder(
    project, empty_database_url, redis_url
):
    environment = {
        **os.environ,
        "DATABASE_URL": empty_database_url,
        "REDIS_URL": redis_url,
        "TELLER_QUEUE_NAME": "arq:tutorial",
        "TELLER_HEALTH_PORT": "0",
    }
    said = {}
    for command in tutorial.commands():
        done = subprocess.run(
            [sys.executable, *command],
            cwd=project,
            env=environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        said[" ".join(command[:4])] = done.stdout

    jobs = [line.split("\t")[1:3] for line in said["-m worker jobs list"].splitlines()[1:]]
    assert ["issue_invoice", "completed"] in jobs
    assert ["remind_customer", "queued"] in jobs
    assert "count_unpaid" in said["-m worker schedules count_unpaid"]
