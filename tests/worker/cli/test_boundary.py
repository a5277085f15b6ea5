"""Whatever a command meets, a person reads one sentence, and a program an exit code."""

import os
import shlex
import subprocess
import sys

import pytest

from tests.worker.cli.commands import assert_one_sentence, run_line
from worker.cli._boundary import OWN_ERROR, run_guarded
from worker.errors import TellerError, visible


def guarded(error, capsys):
    def command():
        raise error

    code = run_guarded(command, [])
    return code, capsys.readouterr().err


def test_a_mistake_of_our_own_is_one_line_that_says_where_the_details_are(capsys, monkeypatch):
    code, errors = guarded(KeyError("a\x1b[31m\nb"), capsys)

    assert code == OWN_ERROR
    assert errors.count("\n") == 1
    assert "KeyError" in errors
    assert "TELLER_TRACEBACK=1" in errors
    assert "\x1b" not in errors

    monkeypatch.setenv("TELLER_TRACEBACK", "1")
    assert "Traceback (most recent call last)" in guarded(KeyError("a"), capsys)[1]


class WordlessError(Exception):
    def __str__(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (WordlessError(), OWN_ERROR),
        (TellerError("this\nis \u202ewrong"), 2),
        (FileNotFoundError(2, "No such file", b"\xff"), 2),
        (OSError(28, "No space left on device"), 2),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(32, "Broken pipe"), 1),
        (SystemExit(7), 7),
        (SystemExit(None), 0),
        (SystemExit("words"), 1),
    ],
    ids=repr,
)
def test_every_exception_ends_as_an_exit_code_and_at_most_one_line(error, code, capsys):
    seen, errors = guarded(error, capsys)

    assert seen == code
    assert errors.count("\n") <= 1
    assert "Traceback" not in errors


def test_text_is_shown_on_one_line_with_what_a_terminal_would_obey_made_visible():
    assert visible("a\x1b[31m\x9b\n\u202e\u2028\udcff\u200d") == (
        r"a\x1b[31m\x9b\n\u202e\u2028\udcff\u200d"
    )
    assert visible("Zoë 李 [red]") == "Zoë 李 [red]"


@pytest.mark.parametrize(
    "line",
    [
        ["audit", "\udcff"],
        ["jobs", "show", "\udcff"],
        ["jobs", "list", "--kind", "\udcff"],
        ["jobs", "cancel", "x", "--reason", "\udcff"],
        ["enqueue", "purge_record", "\udcff"],
        ["enqueue", "--file", "\udcff"],
        ["enqueue", "--file", "x", "--batch", "\udcff"],
        ["compat", "--against", "\udcff"],
        ["migrate", "\udcff"],
    ],
    ids=ascii,
)
def test_an_argument_that_is_not_utf_8_is_told_by_its_number(line, capsys, monkeypatch):
    answer = run_line(line, capsys, monkeypatch)

    (number,) = (at for at, part in enumerate(line, start=1) if not part.isascii())
    assert_one_sentence(answer, f"argument {number} is not UTF-8")


CLOSED_INPUT = "standard input is closed"


@pytest.mark.parametrize(
    "line",
    [["enqueue", "purge_record", "-"], ["enqueue", "--file", "-", "--batch", "b"]],
    ids=" ".join,
)
def test_a_closed_standard_input_is_told_by_whoever_reads_it(line, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)

    assert_one_sentence(run_line(line, capsys, monkeypatch), CLOSED_INPUT)


def shell(command):
    """Run a command line of the shell's, with `worker` in it."""
    worker = f"{shlex.quote(sys.executable)} -m worker"
    return subprocess.run(
        command.replace("worker", worker, 1),
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("worker contract --check >&-", "standard output is closed"),
        ("worker contract --check > /dev/full", "cannot write the output: No space left on device"),
        ("worker enqueue purge_record - <&-", CLOSED_INPUT),
    ],
)
def test_closed_and_full_streams_are_one_line_of_a_process_too(command, said):
    answer = shell(command)

    assert answer.returncode == 2
    assert answer.stderr.startswith("error: ")
    assert said in answer.stderr
    assert answer.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_reader_that_has_seen_enough_is_no_error():
    answer = shell("sleep 0; (worker --help; echo code $? >&2) | true")

    assert answer.stderr in {"code 0\n", "code 1\n"}
