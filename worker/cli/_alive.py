"""A sign of life from commands that may take long: who waits at a terminal sees that they work."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from worker.errors import tell

INTERVAL_S: Final = 5.0


@asynccontextmanager
async def still_working(
    waits_for: Callable[[], str], interval_s: float | None = None
) -> AsyncIterator[None]:
    """Tell every few seconds, while a block runs, that it does and what it waits for.

    Only to a person: where standard error is a terminal.

    Args:
        waits_for: returns it in a few words, as it is at that moment.
        interval_s: between two lines; None: `INTERVAL_S`.
    """
    if not is_watched():
        yield
        return
    telling = asyncio.create_task(
        _tell(waits_for, INTERVAL_S if interval_s is None else interval_s)
    )
    try:
        yield
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError):
            await telling


def is_watched() -> bool:
    """Return whether a person may look at standard error."""
    return sys.stderr is not None and sys.stderr.isatty()


async def _tell(waits_for: Callable[[], str], interval_s: float) -> None:
    began = time.monotonic()
    while True:
        await asyncio.sleep(interval_s)
        tell(f"still working, {time.monotonic() - began:.0f} s: {waits_for()}")
