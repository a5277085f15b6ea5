"""A session's own asyncpg connection, for the few statements whose cost counts on every job."""

from typing import TYPE_CHECKING, Any

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession


async def driver_of(session: "AsyncSession") -> Any:  # noqa: ANN401 - asyncpg carries no types
    """Return the asyncpg connection of the session's transaction, which is open for certain.

    SQLAlchemy sends BEGIN with its own first statement and not before; a statement given straight
    to the driver ahead of that would commit by itself.
    """
    connection = await session.connection()
    driver: Any = (await connection.get_raw_connection()).driver_connection
    if not driver.is_in_transaction():
        await session.execute(text("SELECT 1"))
    return driver
