"""The servers a command works with: those whose URLs are given, else ones started from wheels."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dotenv import dotenv_values

from worker.dev.servers import EmbeddedError, PostgresServer, ValkeyServer
from worker.errors import StartupError
from worker.settings import ENV_FILE, Settings, load_settings

DIRECTORY = Path(".teller")
"""Where they keep their data, in the working directory."""


Say = Callable[[str], None]


def _say_nothing(_words: str) -> None:
    pass


@contextmanager
def local_servers(directory: Path = DIRECTORY, say: Say = _say_nothing) -> Iterator[Settings]:
    """Yield settings whose servers are up; those that were started here stop with the block.

    Nothing is started in the place of a server whose URL is given.

    Args:
        directory: where the servers keep their data.
        say: told which servers were started, and which are used.

    Raises:
        StartupError: a server cannot be started; the message says what to do.
    """
    with ExitStack() as exits:
        try:
            _start_missing(directory, say, exits)
        except EmbeddedError as error:
            raise StartupError(str(error)) from error
        yield load_settings()


def given_settings() -> dict[str, str | None]:
    """Return what the environment and the settings' file say, by name; the environment wins."""
    return {**dotenv_values(ENV_FILE), **os.environ}


def _start_missing(directory: Path, say: Say, exits: ExitStack) -> None:
    """Start the servers without a given URL; export the URLs, for child processes too."""
    given = given_settings()
    servers = {
        "DATABASE_URL": PostgresServer(directory / "postgres"),
        "REDIS_URL": ValkeyServer(directory / "valkey"),
    }
    for name, server in servers.items():
        url = given.get(name)
        # A URL that an earlier start printed, and whose server is gone, means the one of here.
        if url and url != server.left_url:
            say(f"{name} is set, so no {server.name} is started")
            continue
        exits.enter_context(server)
        _export(name, server.url, exits)
        say(f"{server.name} started, data in {server.directory}")
    if not given.get("TELLER_REPORTS_URL"):
        _export("TELLER_REPORTS_URL", (directory / "reports").absolute().as_uri(), exits)


def _export(name: str, url: str, exits: ExitStack) -> None:
    before = os.environ.get(name)
    os.environ[name] = url
    if before is None:
        exits.callback(os.environ.pop, name, None)
    else:
        exits.callback(os.environ.__setitem__, name, before)
