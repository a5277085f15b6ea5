"""Garbage collection in a worker process that has started.

After start-up, what is loaded is frozen (about 100,000 objects that never die), and new objects
are collected less often: else Python's collector would walk through all of them again and again.
"""

import gc
from typing import Any, Final

YOUNG_OBJECTS_MAX: Final = 10_000
"""New objects between two collections of the young ones; Python's default is 700."""


def freeze_heap() -> None:
    """Exempt every object of now from garbage collection, and collect new ones less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, *gc.get_threshold()[1:])


def freeze_heap_once_started(name: str, _fields: dict[str, Any]) -> None:
    """Freeze the heap at the event `worker.started`: a subscriber to the events."""
    if name == "worker.started":
        freeze_heap()
