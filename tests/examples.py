"""How many examples a property is tried with: a tenth, or all of them in `make thorough`."""

import os

EXAMPLES_MIN = 40


def examples(count: int) -> int:
    """Return how many of `count` examples to try here."""
    if os.environ.get("TELLER_THOROUGH"):
        return count
    return min(count, max(count // 10, EXAMPLES_MIN))
