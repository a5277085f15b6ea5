"""Exits of a job's own tasks, kept inside the job.

asyncio lets SystemExit and KeyboardInterrupt of *any* task leave the event loop, past whoever waits
for that task: a library that calls `sys.exit` in a task of its own would end this worker, and then
the next one that the job is delivered to. Tasks that a job starts raise an ordinary error instead.
"""

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

from arq.worker import JobExecutionFailed

from .outcomes import describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

T = TypeVar("T")

IN_JOB: Final[ContextVar[bool]] = ContextVar("worker_loop_in_job", default=False)
"""Set in the task that starts jobs, and so in theirs, and in every task that comes from there."""


class _Contained(Coroutine[Any, Any, Any]):
    """A coroutine whose exits are errors."""

    def __init__(self, coroutine: "Coroutine[Any, Any, Any]") -> None:
        self._coroutine = coroutine

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what a coroutine has
        return getattr(self._coroutine, name)

    def __await__(self) -> "Generator[Any, Any, Any]":
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:  # noqa: ANN401 - a coroutine's
        try:
            return self._coroutine.send(value)
        except (SystemExit, KeyboardInterrupt) as error:
            raise JobExecutionFailed(f"in a task of its own, {describe_exit(error)}") from None

    def throw(self, *error: Any) -> Any:  # noqa: ANN401 - a coroutine's
        try:
            return self._coroutine.throw(*error)
        except (SystemExit, KeyboardInterrupt) as exit_:
            raise JobExecutionFailed(f"in a task of its own, {describe_exit(exit_)}") from None

    def close(self) -> None:
        self._coroutine.close()


class _Factory:
    """A task factory that looks where a task comes from, and leaves the rest to another."""

    def __init__(self, other: "Callable[..., Any] | None") -> None:
        self.other = other

    def __call__(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Any,  # noqa: ANN401 - what the program hands to create_task
        **options: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401 - the other factory's
        if IN_JOB.get() and asyncio.iscoroutine(coroutine):
            coroutine = _Contained(coroutine)
        if self.other is None:
            return asyncio.Task(coroutine, loop=loop, **options)
        return self.other(loop, coroutine, **options)


def contain_exits(loop: asyncio.AbstractEventLoop) -> None:
    """Keep exits of tasks that jobs start on this event loop inside their jobs."""
    factory = loop.get_task_factory()
    if not isinstance(factory, _Factory):
        loop.set_task_factory(_Factory(factory))


def create_job_task(
    loop: asyncio.AbstractEventLoop, coroutine: "Coroutine[Any, Any, T]"
) -> "asyncio.Task[T]":
    """Start the task of a job, whose own exits the runner catches."""
    factory = loop.get_task_factory()
    if isinstance(factory, _Factory) and factory.other is None:
        return asyncio.Task(coroutine, loop=loop)  # past the factory: this is done per job
    return loop.create_task(coroutine)
