"""How much of what can be tried is tried: a part, or all of it in `make thorough`."""

import os
from collections.abc import Sequence
from itertools import cycle, islice, product

EXAMPLES_MIN = 40
THOROUGH = bool(os.environ.get("TELLER_THOROUGH"))


def examples(count: int) -> int:
    """Return how many of `count` examples to try here."""
    if THOROUGH:
        return count
    return min(count, max(count // 10, EXAMPLES_MIN))


def pairs(left: Sequence[str], right: Sequence[str]) -> list[tuple[str, str]]:
    """Return so many pairs that each value of both is in one at least; or all pairs."""
    if THOROUGH:
        return list(product(left, right))
    count = max(len(left), len(right))
    return list(islice(zip(cycle(left), cycle(right), strict=False), count))
