"""Logs, a line per event, as JSON or plain words; none, not even arq's, holds arguments."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any, Final, Literal

import orjson

from worker.monitoring.plain_lines import PlainLines, fields_of

Form = Literal["json", "plain"]

OURS: Final = "teller"
ARQ_LOGGER: Final = "arq.worker"
_ARGUMENTS_PLACE: Final = 2
"""Where `%6.2fs → %s(%s)%s`, arq's line at a job's start, has the arguments."""

_logger: Final = logging.getLogger(OURS)


def write_event(level: int, event: str, fields: dict[str, Any]) -> None:
    """Write one line for an event, if its level is on."""
    _logger.log(level, event, extra={"fields": fields})


def configure_logs(level: str, form: Form = "json") -> None:
    """Write events to standard error from `level` up. Safe to call again."""
    _logger.setLevel(level)
    _logger.handlers[:] = [_lines(form)]
    _logger.propagate = False


def configure_all_logs(level: str, form: Form = "json") -> None:
    """Write events and every library's warnings, in a process that is Teller's alone."""
    configure_logs(level, form)
    others = _lines(form)
    others.setLevel(max(logging.WARNING, logging.getLevelName(level)))
    logging.getLogger().handlers[:] = [others]


class JsonLines(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line: what happened, its fields, how bad it is, and when (UTC)."""
        line: dict[str, Any] = {"event": record.getMessage(), **fields_of(record)}
        if record.name != OURS:
            line["logger"] = record.name
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")
        line |= {"level": record.levelname.lower(), "at": at}
        return orjson.dumps(line, default=str).decode()


def _lines(form: Form) -> logging.Handler:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if form == "json" else PlainLines())
    return handler


class _ArgumentsHidden(logging.Filter):
    """Blanks the arguments that arq prints when a job starts: payloads are private."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.msg, str) and "→ %s(%s)" in record.msg and record.args:
            arguments = list(record.args)
            arguments[_ARGUMENTS_PLACE] = "…"
            record.args = tuple(arguments)
        return True


_hidden: Final = _ArgumentsHidden()


def hide_arguments() -> None:
    """Keep payloads out of the lines that arq's own loop writes. Safe to call again."""
    logging.getLogger(ARQ_LOGGER).addFilter(_hidden)
