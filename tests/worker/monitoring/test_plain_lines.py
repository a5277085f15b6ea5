"""A log for a terminal: one plain line for each job."""

import logging

import pytest

from worker.monitoring.plain_lines import PlainLines

JOB = {"job_id": "01a2161f-6411-787f-b1c2-3423d4c8c7f2", "kind": "transfer_funds"}


def told(event, level=logging.INFO, **fields):
    record = logging.LogRecord("teller", level, __file__, 1, event, (), None)
    record.fields = fields
    _at, _, line = PlainLines().format(record).partition("  ")
    return line


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        (
            {"state": "completed", "try_number": 1, "run_s": 0.0081, "wait_s": 0.0021},
            f"completed   transfer_funds {JOB['job_id']}  took 8 ms, waited 2 ms",
        ),
        (
            {"state": "rejected", "try_number": 3, "run_s": 1.81, "wait_s": 12},
            f"rejected    transfer_funds {JOB['job_id']}  took 1.8 s, waited 12.0 s, try 3",
        ),
    ],
)
def test_the_end_of_a_job_is_one_line_with_its_state_its_kind_and_its_times(fields, line):
    assert told("job.finished", **JOB, **fields) == line


def test_anything_else_is_its_name_and_what_is_known_of_it():
    assert told("worker.started", concurrency=16) == "worker.started  concurrency=16"
    assert (
        told("redis.lost", logging.WARNING, error="ConnectionError")
        == "redis.lost (warning)  error=ConnectionError"
    )


def test_a_terminal_is_told_nothing_that_it_would_obey():
    assert "\x1b" not in told("job.failed", kind="\x1b[2Jgone", error="\x07")
