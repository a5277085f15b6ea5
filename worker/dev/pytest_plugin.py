"""Fixtures for the tests of your own jobs, on real servers.

In your `conftest.py`:

    pytest_plugins = ["worker.dev.pytest_plugin"]

`workbench` is a migrated database of the test's own, and an executor that runs there what is due.
Servers come from DATABASE_URL and REDIS_URL where they are set, else from the `embedded` extra.
"""

import asyncio
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from db.engine import create_engine, create_sessions
from jobs._services import open_dry_services
from worker.app import migrate_database
from worker.dev.servers import Stack
from worker.dev.workbench import Workbench

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from jobs._services import Services

    Prepare = Callable[[AsyncConnection], Awaitable[None]]

COPIES_AS_FILES = 150_000
"""From this version on a server can be told how it copies a database."""


class Databases:
    """Makes and drops databases on one server; a migrated one is copied, which is quick."""

    def __init__(self, server_url: str, prepare: "Prepare | None" = None) -> None:
        """Migrate the database that is copied.

        Args:
            server_url: of any database on the server.
            prepare: what else is made in it, given a connection in a transaction.
        """
        self.server_url = server_url
        # The default writes every page to the WAL: for a small copy that takes ten times as long.
        version = int(self.execute("SHOW server_version_num"))
        self._how = "STRATEGY FILE_COPY" if version >= COPIES_AS_FILES else ""
        self.template = self.create()
        asyncio.run(_migrate(self.url(self.template), prepare))

    def url(self, name: str) -> str:
        """Return the URL of one of its databases."""
        return make_url(self.server_url).set(database=name).render_as_string(hide_password=False)

    def create(self, template: str = "template1") -> str:
        """Make a database, and return its name."""
        name = f"teller_test_{uuid.uuid4().hex[:12]}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" {self._how}')
        return name

    @contextmanager
    def copy(self) -> Iterator[str]:
        """Make a migrated database for as long as the block lasts, and return its URL."""
        name = self.create(self.template)
        try:
            yield self.url(name)
        finally:
            self.drop(name)

    def drop(self, name: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> Any:  # noqa: ANN401 - SQL's value
        """Run one statement outside any of its databases, and return its first value."""

        async def run() -> Any:  # noqa: ANN401 - as above
            connection = await asyncpg.connect(self.server_url)
            try:
                return await connection.fetchval(statement)
            finally:
                await connection.close()

        return asyncio.run(run())


async def _migrate(url: str, prepare: "Prepare | None") -> None:
    engine = create_engine(url, pool_size=2, application_name="teller-tests")
    try:
        await migrate_database(engine)
        if prepare is not None:
            async with engine.begin() as connection:
                await prepare(connection)
    finally:
        await engine.dispose()


@pytest.fixture(scope="session")
def teller_databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Return where databases are made: a server that was given, or one of the tests' own."""
    if (given := os.environ.get("DATABASE_URL")) is not None:
        made = Databases(given)
        yield made
        made.drop(made.template)
        return
    with Stack.start(tmp_path_factory.mktemp("teller"), durable=False) as stack:
        yield Databases(stack.database_url)


@pytest.fixture
def teller_database_url(teller_databases: Databases) -> Iterator[str]:
    """Return the URL of a migrated database that this test has for itself."""
    with teller_databases.copy() as url:
        yield url


@pytest_asyncio.fixture
async def teller_services() -> "AsyncIterator[Services]":
    """Return what handlers find as `ctx.services`: override it in your own conftest."""
    async with open_dry_services() as services:
        yield services


@pytest_asyncio.fixture
async def workbench(
    teller_database_url: str, teller_services: "Services"
) -> AsyncIterator[Workbench]:
    """Return a workbench on a database of this test's own."""
    engine = create_engine(teller_database_url, pool_size=4, application_name="teller-tests")
    try:
        yield Workbench(engine, create_sessions(engine), teller_services)
    finally:
        await engine.dispose()
