"""The servers a command works with: those whose URLs are given, else ones started from wheels."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dotenv import dotenv_values

from worker.dev.servers import EmbeddedError, PostgresServer, ValkeyServer
from worker.errors import StartupError
from worker.settings import ENV_FILE, Settings, load_settings

DIRECTORY = Path(".teller")
"""Where they keep their data, in the working directory."""


@contextmanager
def local_servers(directory: Path = DIRECTORY) -> Iterator[Settings]:
    """Yield settings whose servers are up; those that were started here stop with the block.

    Nothing is started in the place of a server whose URL is given.

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
    """Start the servers without a given URL; export the URLs, for child processes too."""
    given = {**dotenv_values(ENV_FILE), **os.environ}
    if not given.get("DATABASE_URL"):
        postgres = exits.enter_context(PostgresServer(directory / "postgres"))
        _export("DATABASE_URL", postgres.url, exits)
    if not given.get("REDIS_URL"):
        valkey = exits.enter_context(ValkeyServer(directory / "valkey"))
        _export("REDIS_URL", valkey.url, exits)
    if not given.get("TELLER_REPORTS_URL"):
        _export("TELLER_REPORTS_URL", (directory / "reports").absolute().as_uri(), exits)


def _export(name: str, url: str, exits: ExitStack) -> None:
    os.environ[name] = url
    exits.callback(os.environ.pop, name, None)
