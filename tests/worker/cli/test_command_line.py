"""The command line as a whole: help that is readable, and a hint for a name that is misspelt."""

import re

import pytest
from typer.testing import CliRunner

from worker.__main__ import app, command_files

COLUMNS = 80


def help_rows(*line):
    """Return the rows of a help page's list of commands, as eighty columns show it."""
    answer = CliRunner().invoke(app, [*line, "--help"], env={"COLUMNS": str(COLUMNS)})
    assert answer.exit_code == 0
    (panel,) = re.findall(r"─ Commands ─.*?\n(.*?)╰", answer.output, re.DOTALL)
    return [row.strip("│ ") for row in panel.splitlines()]


@pytest.mark.parametrize("line", [[], ["jobs"]], ids=["worker", "worker jobs"])
def test_the_help_of_every_command_is_one_sentence_on_one_line(line):
    rows = help_rows(*line)

    for row in rows:
        assert re.fullmatch(r"[a-z]+ +[A-Z].*\.", row), row


def test_every_file_and_folder_is_a_command_and_nothing_else():
    assert [row.split()[0] for row in help_rows()] == command_files()
    assert {"run", "jobs", "enqueue", "contract"} <= set(command_files())
    assert not {"_options", "_connections", "command"} & set(command_files())


@pytest.mark.parametrize(
    ("line", "meant"),
    [(["job"], "'jobs'"), (["migrte"], "'migrate'"), (["jobs", "lst"], "'list'")],
)
def test_a_misspelt_name_is_answered_with_the_one_that_was_meant(line, meant):
    answer = CliRunner().invoke(app, line)

    assert answer.exit_code == 2
    assert f"Did you mean {meant}?" in answer.output
