"""A fresh look at the server: whether it serves anybody at this moment.

A job that lost its connection, or ran out of time, may have done that to itself. A new connection
tells: one that is refused, silent or can only read shows that the server is away.
"""

import asyncio
from typing import TYPE_CHECKING, Final

from db.engine import connector_of

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

PROBE_WAIT_S: Final = 2.0

WRITES: Final = "SELECT pg_catalog.current_setting('transaction_read_only') = 'off'"


class ServerProbe:
    """Looks at the server of an engine, past its pool; looks at the same time are one look."""

    def __init__(self, engine: "AsyncEngine") -> None:
        self._engine = engine
        self._look: asyncio.Task[bool] | None = None

    async def is_away(self) -> bool:
        """Return whether the server does not serve; known after `PROBE_WAIT_S` at most."""
        look = self._look
        if look is None or look.done():
            look = self._look = asyncio.get_running_loop().create_task(self._answers())
        return not await asyncio.shield(look)

    async def _answers(self) -> bool:
        connection = None
        try:
            async with asyncio.timeout(PROBE_WAIT_S):
                connection = await connector_of(self._engine).open()
                return bool(await connection.fetchval(WRITES))
        except Exception:  # noqa: BLE001 - whatever stands in the way, no job gets through either
            return False
        finally:
            if connection is not None:
                connection.terminate()
