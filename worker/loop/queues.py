"""The queues that one worker serves; each has slots of its own, so that none starves another."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .claims import Claims
    from .completions import Completion
    from .slots import Slots
    from .suspects import Suspects


class Queues:
    """The slots of each queue, by its key in Redis; the worker's own queue is the first."""

    def __init__(self, slots: "Iterable[Slots]", claims: "Claims", suspects: "Suspects") -> None:
        self._slots = {one.queue_name: one for one in slots}
        self._claims = claims
        self._suspects = suspects

    def __getitem__(self, queue_name: str) -> "Slots":
        """Return a queue's slots.

        Raises:
            KeyError: the worker does not serve it.
        """
        return self._slots[queue_name]

    def __iter__(self) -> "Iterator[Slots]":
        """Return the slots of each queue."""
        return iter(self._slots.values())

    @property
    def names(self) -> "tuple[str, ...]":
        """The queues' keys in Redis."""
        return tuple(self._slots)

    @property
    def free_count(self) -> int:
        """How many more jobs could start now, in all queues together."""
        return sum(slots.free_count for slots in self)

    def open(self) -> None:
        """Let jobs start, from now on."""
        for slots in self:
            slots.open()

    def close(self) -> None:
        """Let no more jobs start."""
        for slots in self:
            slots.close()
        self._suspects.look_again()

    def drain(self) -> None:
        """Leave rings to other workers, and let suspects that wait know of the drain."""
        for slots in self:
            slots.awaits_ring.clear()
        self._suspects.look_again()

    def is_batch(self, count: int) -> bool:
        """Return whether so many completions are worth a call to Redis now."""
        return all(slots.is_batch(count) for slots in self)

    def note_recorded(self, completions: "list[Completion]") -> None:
        """Note that Redis has stored these completions, and so released their leases."""
        for completion in completions:
            claim = self._claims.held.get(completion.job_id)
            if claim is not None:
                claim.owned = False
            if completion.kind != "done":
                # The job may be due at once, or sooner than the fetcher planned to look.
                self._slots[completion.queue_name].changed.set()
