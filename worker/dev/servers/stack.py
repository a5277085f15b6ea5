"""Both servers together."""

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from .postgres import CONNECTIONS_MAX, PostgresServer
from .valkey import ValkeyServer


class Stack:
    """A running PostgreSQL and a running Valkey; leaving the `with` block stops both."""

    def __init__(self, postgres: PostgresServer, valkey: ValkeyServer, exits: ExitStack) -> None:
        self.postgres = postgres
        self.valkey = valkey
        self._exits = exits

    @classmethod
    def start(
        cls, directory: Path, *, durable: bool = True, max_connections: int = CONNECTIONS_MAX
    ) -> Self:
        """Start both in `directory`, or neither.

        Without `durable` neither waits for the disk, and Valkey keeps nothing over its end.
        """
        postgres = PostgresServer(
            directory / "postgres", durable=durable, max_connections=max_connections
        )
        valkey = ValkeyServer(directory / "valkey", append_only=durable)
        with ExitStack() as exits:
            exits.enter_context(postgres)
            exits.enter_context(valkey)
            return cls(postgres, valkey, exits.pop_all())

    @property
    def database_url(self) -> str:
        """What `DATABASE_URL` would be."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        """What `REDIS_URL` would be."""
        return self.valkey.url

    def stop(self) -> None:
        """Stop both; harmless when stopped."""
        self._exits.close()

    def __enter__(self) -> Self:
        """They are up already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop both."""
        self.stop()
