"""The command line as a whole, run within the test's process: what a person reads, and the code."""

import sys
from dataclasses import dataclass

from worker.__main__ import run


@dataclass(frozen=True)
class Answer:
    """What one command line wrote and returned."""

    code: int
    output: str
    errors: str


def run_line(line, capsys, monkeypatch):
    """Run `python -m worker LINE`, from the arguments to the exit code."""
    monkeypatch.setattr(sys, "argv", ["worker", *line])
    capsys.readouterr()
    code = run()
    return Answer(code, *capsys.readouterr())


def assert_one_sentence(answer, said):
    """Check that a command failed with one line that says what to do, and did so as foreseen."""
    assert answer.code == 2, answer
    assert "Traceback" not in answer.errors
    assert answer.errors.startswith("error: ")
    assert answer.errors.count("\n") == 1, answer.errors
    assert said in answer.errors
    assert answer.output == ""
