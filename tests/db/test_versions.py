"""What differs between versions of PostgreSQL: run it on each by `make matrix`."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from functools import cached_property

import pytest
from sqlalchemy import text

from db.connector import UnsuitableDatabaseError
from db.engine import create_engine
from db.transaction import JobTransaction, terms_of
from tests import servers as versions
from worker.dev.servers import PostgresServer, postgres

TOO_OLD = 13


class OfVersion(PostgresServer):
    """A server of a version that the project itself would not start."""

    @cached_property
    def _binaries(self):
        return versions.postgres(TOO_OLD)


async def value_of(engine, expression, **values):
    async with engine.connect() as connection:
        return await connection.scalar(text(f"SELECT {expression}"), values)


@pytest.mark.needs_servers
async def test_a_server_that_is_too_old_is_told_in_one_sentence(tmp_path, monkeypatch):
    known = [option for option in postgres._INITDB if option != "--no-instructions"]
    monkeypatch.setattr(postgres, "_INITDB", known)
    versions.fetched(versions.postgres, TOO_OLD)
    server = OfVersion(tmp_path, durable=False)
    await asyncio.to_thread(server.start)
    try:
        engine = create_engine(server.url, pool_size=1, application_name="tests")
        with pytest.raises(UnsuitableDatabaseError) as told:
            async with engine.connect():
                pass
        await engine.dispose()
    finally:
        await asyncio.to_thread(server.stop)
    assert str(told.value) == "the server is PostgreSQL 13, and 14 or newer is needed"


async def test_new_ids_are_uuids_of_version_7_of_this_moment_and_in_order(engine):
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    async with engine.connect() as connection:
        rows = await connection.scalars(text("SELECT new_id() FROM generate_series(1, 2000)"))
        made = rows.all()
    after = datetime.now(UTC)

    assert {(one.version, one.variant) for one in made} == {(7, uuid.RFC_4122)}
    moments = [datetime.fromtimestamp((one.int >> 80) / 1000, UTC) for one in made]
    assert before <= moments[0] <= moments[-1] <= after
    assert made == sorted(made)
    assert len({one.int & (2**62 - 1) for one in made}) == len(made)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("{}", True),
        (' {"a": [1, 2.5e3, null]} ', True),
        ('"text"', True),
        ("1" * 500, True),
        ("", False),
        ("{", False),
        ("{'a': 1}", False),
        ("NaN", False),
        ("01", False),
        ('"\\u0000"', False),
        ('"\\ud800"', False),
        ("1e400000", False),
        ('{"a": 1}{', False),
    ],
)
async def test_what_jsonb_holds_is_known_before_the_cast(engine, value, valid):
    assert await value_of(engine, "is_json(CAST(:value AS text))", value=value) is valid


async def test_days_are_those_of_the_calendar(engine):
    day, wrong = datetime(1999, 12, 1, tzinfo=UTC), []
    for _ in range(3 * 366):
        day += timedelta(days=1)
        wrong += [day] * (not await is_day(engine, day.date().isoformat()))
    assert wrong == []


NO_DAYS = [
    "2023-02-29",
    "1900-02-29",
    "2024-02-30",
    "2024-04-31",
    "2024-13-01",
    "2024-00-01",
    "2024-01-00",
    "2024-01-32",
    "0000-01-01",
    "2024-1-1",
    "24-01-01",
    "today",
    "infinity",
]


@pytest.mark.parametrize("value", NO_DAYS)
async def test_what_is_no_day_is_none(engine, value):
    assert not await is_day(engine, value)


async def is_day(engine, value):
    return await value_of(engine, "is_day(CAST(:value AS text))", value=value)


async def test_connections_that_open_at_once_all_learn_what_the_server_lacks(database_url):
    engine = create_engine(database_url, pool_size=8, application_name="tests")

    async def limit():
        async with JobTransaction(engine, timedelta(minutes=5)) as transaction:
            session = transaction.session
            at_start = await session.scalar(text("SHOW lock_timeout"))
            statement = await session.scalar(text("SHOW statement_timeout"))
            named = text("SELECT current_setting('transaction_timeout', true)")
            return at_start, statement, await session.scalar(named), transaction._driver

    found = await asyncio.gather(*(limit() for _ in range(8)))

    major = found[0][3].get_server_version().major
    whole = "305s" if major >= 17 else None
    assert {row[:3] for row in found} == {("2s", "305s", whole)}
    assert {row[3].has_transaction_timeout for row in found} == {major >= 17}
    assert terms_of(timedelta(minutes=5)).transaction_limit
    await engine.dispose()
