"""The log as plain words: one line for each job, for whoever watches a terminal."""

import logging
from datetime import datetime
from typing import Any, Final

from worker.errors import visible

_JOB_ENDS: Final = ("job.finished", "job.dead")
_LEFT_OUT: Final = ("job_id", "kind", "state", "run_s", "wait_s", "try_number")
_MILLISECOND: Final = 0.001


class PlainLines(logging.Formatter):
    """A log record as words: when, what, and what is known of it. Times are local."""

    def format(self, record: logging.LogRecord) -> str:
        """Return `12:03:04  completed  transfer_funds 01a2…  took 8 ms, waited 2 ms`."""
        fields = dict(fields_of(record))
        event = record.getMessage()
        at = f"{datetime.fromtimestamp(record.created):%H:%M:%S}"  # noqa: DTZ006 - a terminal's own
        if event in _JOB_ENDS:
            what = str(fields.get("state", "dead"))
        else:
            what = event if record.levelno < logging.WARNING else f"{event} ({_level(record)})"
        words = (at, f"{what:10}", *_subject(fields), *_times(fields), *_rest(fields))
        line = visible("  ".join(words).rstrip())
        if record.exc_info:
            traced = self.formatException(record.exc_info).splitlines()
            line = "\n".join([line, *map(visible, traced)])
        return line


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """Return an event's fields; a library's record has none."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _level(record: logging.LogRecord) -> str:
    return record.levelname.lower()


def _subject(fields: dict[str, Any]) -> list[str]:
    named = [str(fields[name]) for name in ("kind", "job_id") if fields.get(name)]
    return [" ".join(named)] if named else []


def _times(fields: dict[str, Any]) -> list[str]:
    told = [
        f"{word} {_duration(fields[name])}"
        for word, name in (("took", "run_s"), ("waited", "wait_s"))
        if isinstance(fields.get(name), int | float)
    ]
    if isinstance(number := fields.get("try_number"), int) and number > 1:
        told.append(f"try {number}")
    return [", ".join(told)] if told else []


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{max(seconds, 0) / _MILLISECOND:.0f} ms"


def _rest(fields: dict[str, Any]) -> list[str]:
    told = [
        f"{name}={value}"
        for name, value in fields.items()
        if name not in _LEFT_OUT and value is not None
    ]
    return [" ".join(told)] if told else []
