"""What a worker process holds and looks at again and again, once it has started.

By then everything is loaded that it will ever need, and stays: some 100,000 objects that Python's
garbage collector would walk through every few hundred jobs.
"""

import gc
from typing import Any, Final

YOUNG_OBJECTS_MAX: Final = 10_000
"""New objects between two looks at the young ones; Python itself says 700."""


def settle() -> None:
    """Take what is loaded out of the garbage collector's sight, and let it look less often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, *gc.get_threshold()[1:])


def settle_once_started(name: str, _fields: dict[str, Any]) -> None:
    """Hear the worker's events, and settle when it is up."""
    if name == "worker.started":
        settle()
