"""The servers a command works with: the ones whose URLs are given, else embedded ones."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dotenv import dotenv_values

from worker.dev.servers import EmbeddedError, PostgresServer, ValkeyServer
from worker.errors import StartupError
from worker.settings import ENV_FILE, Settings, load_settings

DIRECTORY = Path(".teller")
"""Where embedded servers keep their data, in the directory one stands in."""


@contextmanager
def services(directory: Path = DIRECTORY) -> Iterator[Settings]:
    """Yield settings whose servers are up; what was started here ends with the block.

    A URL that is given wins, and nothing embedded starts in its place.

    Raises:
        StartupError: a server cannot be started; the message says what to do.
    """
    with ExitStack() as exits:
        try:
            _start_missing(directory, exits)
        except EmbeddedError as error:
            raise StartupError(str(error)) from error
        yield load_settings()


def _start_missing(directory: Path, exits: ExitStack) -> None:
    """Start what no URL is given for, and say where it and the reports are, to children too."""
    given = {**dotenv_values(ENV_FILE), **os.environ}
    if not given.get("DATABASE_URL"):
        postgres = exits.enter_context(PostgresServer(directory / "postgres"))
        _announce("DATABASE_URL", postgres.url, exits)
    if not given.get("REDIS_URL"):
        valkey = exits.enter_context(ValkeyServer(directory / "valkey"))
        _announce("REDIS_URL", valkey.url, exits)
    if not given.get("TELLER_REPORTS_URL"):
        _announce("TELLER_REPORTS_URL", (directory / "reports").absolute().as_uri(), exits)


def _announce(name: str, url: str, exits: ExitStack) -> None:
    os.environ[name] = url
    exits.callback(os.environ.pop, name, None)
