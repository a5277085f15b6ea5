"""Queues by name, and where each stands in Redis: arq's own layout, once per queue."""

import re
from typing import Final

QUEUE: Final = "arq:queue"
"""Where the queue `default` stands; the queue `reports` stands in `arq:queue:reports`."""
DEFAULT: Final = "default"
"""The queue of a job that names none."""

_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TAKEN: Final = frozenset({"bell", "epoch", "health-check", "quarantine", "rebuild", "spoiled"})
"""Keys beside a queue end like this."""


def checked_queue(name: str) -> str:
    """Return a queue's name if it can be one.

    Raises:
        ValueError: it cannot; the message says why.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(
            f"the queue {name[:70]!r}: a name is 1 to 63 lower-case letters, digits, _ and -, "
            "and begins with a letter"
        )
    if name in _TAKEN:
        raise ValueError(f"the queue {name!r}: a key beside each queue in Redis has this name")
    return name


def queue_key(name: str, base: str = QUEUE) -> str:
    """Return the key of a queue in Redis.

    Args:
        name: of the queue.
        base: the key of the queue `default`, the worker's TELLER_QUEUE_NAME.

    >>> queue_key("default"), queue_key("reports")
    ('arq:queue', 'arq:queue:reports')
    """
    return base if name == DEFAULT else f"{base}:{name}"
