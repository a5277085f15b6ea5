"""JSON logs, one line per event; and no argument of a job in anybody's line."""

import logging
import sys
from typing import Final

import structlog

ARQ_LOGGER: Final = "arq.worker"
_ARGUMENTS_PLACE: Final = 2
"""Where `%6.2fs → %s(%s)%s`, arq's line at a job's start, has the arguments."""


def configure_logs(level: str) -> None:
    """Write structured lines to standard error from `level` up."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="at"),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


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
