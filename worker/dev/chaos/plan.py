"""Which faults strike, when and how hard: values that follow from a seed alone."""

import random
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from worker.dev.chaos.faults.kind import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from worker.dev.chaos.faults.kind import Kind

BEGIN: Final = 0.02
"""The first part of the load runs undisturbed, and the last: there must be something to break."""
END: Final = 0.95


def schedule(
    seed: int, kinds: "Iterable[Kind]", count: int, *, is_long: bool = False
) -> tuple[Fault, ...]:
    """Return `count` faults in the order of their time, every kind at least once if they fit.

    Args:
        seed: the same one makes the same plan.
        kinds: those to choose from.
        count: how many faults.
        is_long: whether the first of some kinds lasts as long as it must at least once.
    """
    chance = random.Random(seed)  # noqa: S311 - a plan that can be repeated, not a secret
    wanted = sorted(set(kinds), key=lambda kind: kind.name)
    if not wanted:
        return ()
    chosen = chance.sample(wanted, min(count, len(wanted)))
    weights = [kind.weight for kind in wanted]
    chosen += chance.choices(wanted, weights, k=count - len(chosen))
    chance.shuffle(chosen)
    was_long: set[str] = set()
    plan = []
    for number, kind in enumerate(chosen):
        hold_s = kind.hold_s
        if is_long and kind.long_hold_s is not None and kind.name not in was_long:
            was_long.add(kind.name)
            hold_s = kind.long_hold_s
        part = (number + chance.random()) / count
        at = BEGIN + (END - BEGIN) * (part / 2 if kind.is_slow else part)
        plan.append(_fault(kind, number, at, hold_s, chance))
    return tuple(sorted(plan, key=attrgetter("at")))


def _fault(
    kind: "Kind", number: int, at: float, hold_s: tuple[float, float], chance: random.Random
) -> Fault:
    return Fault(
        kind=kind,
        number=number,
        at=round(at, 4),
        hold_s=round(chance.uniform(*hold_s), 2),
        victim=chance.random(),
        force=chance.random(),
        gentle=chance.random() < 0.5,  # noqa: PLR2004 - as often as not
    )
