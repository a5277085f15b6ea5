"""How a handler says how far it is."""

from typing import Protocol


class ShowProgress(Protocol):
    """Shows the job's callers how far it is. Call it from the event loop, as often as you like."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that `done` of `total` is done, in the job's own unit; never waits or raises."""


def show_nobody(done: int, total: int | None = None, note: str = "") -> None:
    """Show progress to nobody: there is no Redis, or no caller."""
