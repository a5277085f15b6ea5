"""The shielded commit: a cancel is either before the commit or after it, never unknown.

A cancel that arrives while COMMIT is under way would report a job as cancelled whose effects may
have been kept. So the unit of work runs in a task of its own. A cancel before the commit has begun
ends that task; a later cancel waits for PostgreSQL's answer, which then decides.

The task also tells whose a cancellation is. One that reaches the unit and not its caller came from
within: it is an error of the unit, like any other. And what asyncio would let through to the event
loop, as it does SystemExit, ends here as an error.
"""

import asyncio
from typing import TYPE_CHECKING, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

COMMIT_ANSWER_WAIT_S: Final = 5.0
UNWIND_WAIT_S: Final = 5.0


class EscapeError(Exception):
    """A unit raised what would end more than itself; the cause is what it raised."""


class ForeignCancelError(Exception):
    """A unit was cancelled from within: nobody cancelled the task that waits for it."""


class UnitTimeoutError(Exception):
    """A unit did not end in time, and was cancelled."""


class CommitWindow:
    """Marks, in a unit of work, how far it is."""

    __slots__ = ("begun", "entered")

    def __init__(self) -> None:
        self.entered = False
        """Whether the unit had its transaction, and began its work in it."""
        self.begun = False
        """Whether it must not be cut short any more."""

    def open(self) -> None:
        """Call directly before the commit, with no await in between."""
        self.begun = True


def is_own_cancel(error: BaseException, cancels_before: int) -> bool:
    """Return whether an error is the cancellation of the current task, and not somebody else's.

    Args:
        error: what was raised.
        cancels_before: `cancelling()` of the current task before the work began.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and task.cancelling() > cancels_before


def cancels_so_far() -> int:
    """Return how many cancellations of the current task are pending; see `is_own_cancel`."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


async def shielded_commit(
    unit: "Callable[[CommitWindow], Awaitable[T]]",
    *,
    window: CommitWindow | None = None,
    limit_s: float | None = None,
) -> T:
    """Run a unit of work so that cancelling this call never cuts its commit in half.

    Args:
        unit: given the window, which it opens before its commit, does the work.
        window: where to see afterwards how far it came.
        limit_s: how long it may take at most.

    Returns:
        The unit's own result, also when a cancel came during a commit that then succeeded.

    Raises:
        asyncio.CancelledError: cancelled before the commit, or its answer did not come in time.
        UnitTimeoutError: it took longer; a unit that ignores its cancellation is left behind.
        ForeignCancelError: it was cancelled, and not through this call.
        EscapeError: it raised SystemExit, KeyboardInterrupt or GeneratorExit.
    """
    window = window or CommitWindow()
    # Past the loop's task factory, which contains a job's own tasks: `_contain` does it here.
    work = asyncio.Task(_contain(unit, window), loop=asyncio.get_running_loop())
    try:
        await _done_or_late(work, limit_s)
    except asyncio.CancelledError:
        await _unwind(work, window)
        if _succeeded(work):
            return work.result()
        raise
    if not work.done():
        await _unwind(work, window)
        if not _succeeded(work):
            raise UnitTimeoutError(f"not done after {limit_s:g} s")
    if work.cancelled():
        raise ForeignCancelError("cancelled from within")
    return work.result()


async def _done_or_late(work: "asyncio.Task[T]", limit_s: float | None) -> None:
    """Wait until a task has ended or the time is over: `asyncio.wait`, at half its cost."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()
    work.add_done_callback(lambda _: _wake(waiter))
    if limit_s is None:
        await waiter
        return
    timer = loop.call_later(limit_s, _wake, waiter)
    try:
        await waiter
    finally:
        timer.cancel()


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


async def _contain(unit: "Callable[[CommitWindow], Awaitable[T]]", window: CommitWindow) -> T:
    try:
        return await unit(window)
    except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
        raise EscapeError(type(error).__name__) from error


async def _unwind(work: "asyncio.Future[T]", window: CommitWindow) -> None:
    """Wait for a unit that is to end: cancelled, or for the answer to its commit."""
    work.add_done_callback(_look_at)
    if not window.begun:
        work.cancel()
    await asyncio.wait({work}, timeout=COMMIT_ANSWER_WAIT_S if window.begun else UNWIND_WAIT_S)


def _look_at(work: "asyncio.Future[T]") -> None:
    """Take notice of the error of a unit that was left behind; asyncio would log its text."""
    if not work.cancelled():
        work.exception()


def _succeeded(work: "asyncio.Future[T]") -> bool:
    return work.done() and not work.cancelled() and work.exception() is None
