"""Faults of the network between workers and servers."""

import asyncio
from typing import TYPE_CHECKING, Final

from worker.dev.chaos.faults.kind import Kind

if TYPE_CHECKING:
    from worker.dev.chaos.faults.kind import Fault, Targets

REPLIES_LOST_MAX: Final = 5
LATENCY_S: Final = (0.001, 0.050)


async def lost_commit(targets: "Targets", fault: "Fault") -> None:
    """Lose the reply to the next few COMMITs, and with it the connection."""
    targets.postgres_proxy.lose_replies(1 + int(fault.force * REPLIES_LOST_MAX))


async def slow_network(targets: "Targets", fault: "Fault") -> None:
    """Let everything between the workers and both servers take its time."""
    shortest_s, longest_s = LATENCY_S
    proxies = (targets.postgres_proxy, targets.redis_proxy)
    async with targets.network_turn:
        for proxy in proxies:
            proxy.latency_s = shortest_s + fault.force * (longest_s - shortest_s)
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            for proxy in proxies:
                proxy.latency_s = 0.0


KINDS: Final = (
    Kind(
        "lost-commit",
        "a proxy lets COMMIT through, waits for PostgreSQL's answer, and cuts the connection in "
        "its place",
        lost_commit,
        weight=8,
    ),
    Kind(
        "slow-network",
        "1 to 50 ms more for every message between workers and servers, for up to 5 s",
        slow_network,
        weight=2,
        hold_s=(1.0, 5.0),
    ),
)
