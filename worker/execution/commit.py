"""The shielded commit: a cancel is either before the commit or after it, never unknown.

A cancel that arrives while COMMIT is under way would report a job as cancelled whose effects may
have been kept. So the unit of work runs in a task of its own. A cancel before the commit has begun
ends that task; a later cancel waits for PostgreSQL's answer, which then decides.
"""

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

COMMIT_ANSWER_WAIT_S: Final = 5.0
UNWIND_WAIT_S: Final = 5.0


class CommitWindow:
    """Marks, in a unit of work, the point from which it must not be cut short."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False

    def open(self) -> None:
        """Call directly before the commit, with no await in between."""
        self.begun = True


async def shielded_commit(unit: "Callable[[CommitWindow], Awaitable[T]]") -> T:
    """Run a unit of work so that cancelling this call never cuts its commit in half.

    Returns:
        The unit's own result, also when a cancel came during a commit that then succeeded.

    Raises:
        asyncio.CancelledError: cancelled before the commit, or its answer did not come in time.
    """
    window = CommitWindow()
    work = asyncio.ensure_future(unit(window))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        if not window.begun:
            work.cancel()
        wait_s = COMMIT_ANSWER_WAIT_S if window.begun else UNWIND_WAIT_S
        await asyncio.wait({work}, timeout=wait_s)
        if _succeeded(work):
            return work.result()
        raise


def _succeeded(work: "asyncio.Future[T]") -> bool:
    return work.done() and not work.cancelled() and work.exception() is None
