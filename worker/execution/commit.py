"""The protected commit window: a cancel is either before the commit or after it, never unknown.

A cancel that arrives while COMMIT is under way would leave a job that may have happened and says
it did not. So the unit of work runs in a task of its own. A cancel before the commit has begun
ends it; a later one waits for the answer, which is then the truth.
"""

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

COMMIT_ANSWER_WAIT_S: Final = 5.0
UNWIND_WAIT_S: Final = 5.0


class CommitWindow:
    """Where a unit of work says that from here on it must not be cut short."""

    __slots__ = ("begun",)

    def __init__(self) -> None:
        self.begun = False

    def open(self) -> None:
        """Call directly before the commit, with no await in between."""
        self.begun = True

    def close(self) -> None:
        """Call when the commit has answered and more work follows that may be cut short."""
        self.begun = False


async def run_protected(unit: "Callable[[CommitWindow], Awaitable[T]]") -> T:
    """Run a unit of work so that cancelling this call never cuts its commit in half.

    Returns:
        The unit's own result; also when a cancel came during a commit that then succeeded.

    Raises:
        asyncio.CancelledError: cancelled, and nothing was committed as far as anyone can know.
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
