"""Every kind of fault in one table: a new kind is a function and an entry in its file's `KINDS`."""

from typing import TYPE_CHECKING, Final

from worker.dev.chaos.faults import (
    environment,
    garbage,
    network,
    pauses,
    poison,
    processes,
    servers,
)
from worker.dev.chaos.faults.kind import (
    GROUP_END,
    Fault,
    Kind,
    Poisoned,
    Recovery,
    Strike,
    Targets,
    inject,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "GROUP_END",
    "KINDS",
    "Fault",
    "Kind",
    "Poisoned",
    "Recovery",
    "Strike",
    "Targets",
    "UnknownFaultError",
    "find",
    "inject",
]

KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        *processes.KINDS,
        *servers.KINDS,
        *network.KINDS,
        *environment.KINDS,
        *pauses.KINDS,
        *poison.KINDS,
        *garbage.KINDS,
    )
}
"""By name."""


class UnknownFaultError(ValueError):
    """There is no such kind of fault; the message names those there are."""


def find(names: "Iterable[str]") -> list[Kind]:
    """Return the kinds of these names, or of these groups; in the table's order.

    Raises:
        UnknownFaultError: a name is neither.
    """
    asked = set(names)
    unknown = asked - KINDS.keys() - {kind.group for kind in KINDS.values()}
    if unknown:
        groups = ", ".join(dict.fromkeys(kind.group for kind in KINDS.values()))
        raise UnknownFaultError(f"{min(unknown)!r} is no kind of fault: those are {groups}")
    return [kind for kind in KINDS.values() if {kind.name, kind.group} & asked]
