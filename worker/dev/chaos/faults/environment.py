"""Faults of the deployment: what a bad migration takes away, and what another program locks."""

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from worker.dev.chaos.faults.kind import Kind
from worker.dev.chaos.retrying import MISSED, retry_until_up

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from worker.dev.chaos.faults.kind import Fault, Targets

WORKERS_ROLE: Final = "teller_chaos"
"""Whom the workers are on servers of our own: no superuser, so that a right can be missing."""
GRANTED_TABLES: Final = ("accounts", "transfers", "entries", "jobs")
GRANT_ALL: Final = (
    f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {WORKERS_ROLE}"
)
LOCK_ACCOUNT: Final = text("""
    SELECT id FROM accounts
    ORDER BY id OFFSET (SELECT floor(:victim * count(*)) FROM accounts) LIMIT 1 FOR UPDATE
""")


async def make_role(engine: "AsyncEngine") -> None:
    """Make the workers' role, with the rights that they need."""
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE ROLE {WORKERS_ROLE} LOGIN"))
        await connection.execute(text(GRANT_ALL))


async def revoke_grant(targets: "Targets", fault: "Fault") -> None:
    """Take the right to a table away for a while."""
    table = GRANTED_TABLES[int(fault.victim * len(GRANTED_TABLES))]
    revoke = f"REVOKE SELECT, INSERT, UPDATE ON {table} FROM {WORKERS_ROLE}"
    async with targets.postgres_turn, _changed(targets.connections.engine, revoke, GRANT_ALL):
        await asyncio.sleep(fault.hold_s)


async def lose_function(targets: "Targets", fault: "Fault") -> None:
    """Take the function that posts transfers away for a while."""
    rename = "ALTER FUNCTION post_transfer RENAME TO post_transfer_is_away"
    restore = "ALTER FUNCTION post_transfer_is_away RENAME TO post_transfer"
    async with targets.postgres_turn, _changed(targets.connections.engine, rename, restore):
        await asyncio.sleep(fault.hold_s)


async def lock_row(targets: "Targets", fault: "Fault") -> None:
    """Hold the lock on an account's row for a while, or until PostgreSQL ends the session."""
    with suppress(*MISSED):
        async with targets.connections.engine.connect() as connection:
            await connection.execute(LOCK_ACCOUNT, {"victim": fault.victim})
            await asyncio.sleep(fault.hold_s)


@asynccontextmanager
async def _changed(engine: "AsyncEngine", change: str, restore: str) -> "AsyncIterator[None]":
    async def execute(statement: str) -> None:
        async with engine.begin() as connection:
            await connection.execute(text(statement))

    await retry_until_up(lambda: execute(change))
    try:
        yield
    finally:
        await retry_until_up(lambda: execute(restore))


KINDS: Final = (
    Kind(
        "revoked-grant",
        "the workers' rights to one of their tables are revoked for some seconds",
        revoke_grant,
        weight=2,
        hold_s=(1.0, 4.0),
        is_outage=True,
        needs_our_servers=True,
    ),
    Kind(
        "missing-function",
        "the function that posts transfers has another name for some seconds",
        lose_function,
        weight=1,
        hold_s=(1.0, 4.0),
        is_outage=True,
        needs_our_servers=True,
    ),
    Kind(
        "locked-row",
        "another program holds the lock on an account's row for up to 8 s",
        lock_row,
        weight=2,
        hold_s=(2.0, 8.0),
    ),
)
