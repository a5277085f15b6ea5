"""What `python -m worker audit` shows of an audit."""

import io

from rich.console import Console

from db.audit import Finding, Report
from worker.cli.audit import show


def shown(*findings):
    out = io.StringIO()
    report = Report({"accepted": 3, "completed": 3}, {"transfers": 2}, findings)
    show(report, Console(file=out, width=80))
    return out.getvalue().splitlines()


def test_a_rule_that_holds_is_one_line():
    lines = shown(Finding("floor", "no entry ever left its account below the floor", 0, ()))
    assert "ok  no entry ever left its account below the floor" in [line.rstrip() for line in lines]
    assert lines[-1] == "difference: 0"


def test_a_rule_that_is_broken_says_how_often_and_names_the_first():
    lines = shown(Finding("floor", "no entry is below the floor", 2, ("[red]one", "two\x1b[2J")))
    assert "BROKEN  floor: 2 differ: no entry is below the floor" in " ".join(lines)
    assert any(line.strip() == "[red]one" for line in lines)
    assert "\x1b" not in "".join(lines)
    assert lines[-1] == "difference: 2"
