"""How much of what can be tried is tried: a part, or all of it in `make thorough`."""

import os

EXAMPLES_MIN = 40
THOROUGH = bool(os.environ.get("TELLER_THOROUGH"))


def examples(count: int) -> int:
    """Return how many of `count` examples to try here."""
    if THOROUGH:
        return count
    return min(count, max(count // 10, EXAMPLES_MIN))
