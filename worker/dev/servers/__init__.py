"""A real PostgreSQL and a real Valkey for demo, dev and tests, started from wheels.

    with Stack.start(Path(".teller")) as stack:
        print(stack.database_url, stack.redis_url)

Nothing here is async, and nothing here belongs in production. The servers cannot outlive this
process (`reaper.py`), work as root (`programs.py`), and can be hurt on purpose: `kill`, `pause`,
`restart`. Read `server.py` first.
"""

from .errors import DirectoryInUseError, EmbeddedError, MissingBinaryError, ServerError
from .postgres import PostgresServer
from .stack import Stack
from .valkey import ValkeyServer

__all__ = [
    "DirectoryInUseError",
    "EmbeddedError",
    "MissingBinaryError",
    "PostgresServer",
    "ServerError",
    "Stack",
    "ValkeyServer",
]
