"""Waiting for a server at start: a worker that begins during an outage waits for its end."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

from db.errors import TRANSIENT, diagnose
from worker.execution.retry import full_jitter

if TYPE_CHECKING:
    from worker.monitoring.events import Events

T = TypeVar("T")

WAIT_BASE_S: Final = 0.2
WAIT_MAX_S: Final = 5.0


async def outlast(unit: Callable[[], Awaitable[T]], events: "Events") -> T:
    """Do something that needs the database, once it is there, however long that takes.

    Only what a retry can help is waited for; an outdated schema or a wrong password is an error.
    """
    for tries in count(1):
        try:
            return await unit()
        except Exception as error:
            trouble = diagnose(error)
            if trouble.trouble not in TRANSIENT:
                raise
            wait_s = full_jitter(WAIT_BASE_S, WAIT_MAX_S, tries, random.random())  # noqa: S311 - jitter
            events.emit(
                "worker.waits_for_database", error=type(error).__name__, sqlstate=trouble.sqlstate
            )
            await asyncio.sleep(wait_s)
    raise AssertionError("unreachable: the count has no end")
