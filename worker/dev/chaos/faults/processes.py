"""Faults of worker processes."""

from typing import TYPE_CHECKING, Final

from worker.dev.chaos.faults.kind import Kind

if TYPE_CHECKING:
    from worker.dev.chaos.faults.kind import Fault, Targets


async def kill_worker(targets: "Targets", fault: "Fault") -> None:
    """`kill -9` a worker, wherever it stands."""
    await targets.fleet.kill(fault.victim)


async def freeze_worker(targets: "Targets", fault: "Fault") -> None:
    """Freeze a worker until its leases have lapsed and others run its jobs; then wake it."""
    await targets.fleet.freeze(fault.victim, fault.hold_s)


KINDS: Final = (
    Kind("kill-worker", "`kill -9` of a worker, which is then replaced", kill_worker, weight=4),
    Kind(
        "freeze-worker",
        "SIGSTOP until its leases have lapsed and others run its jobs; then it wakes",
        freeze_worker,
        weight=2,
        # It must wake up after its lease of 8 s has lapsed, else nothing was proved.
        hold_s=(8.5, 11.0),
        is_slow=True,
    ),
)
