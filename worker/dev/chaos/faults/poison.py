"""Jobs that misbehave: one kind of fault for each deed of `worker.dev.poison`."""

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from db.dev import outcomes_of
from jobs._payload import payload_json
from jobs._wire import QueuedJob, create, job_id_of, redis_id_of
from worker.dev.chaos.faults.kind import Kind, Poisoned, Recovery
from worker.dev.chaos.retrying import retry_until_up
from worker.dev.poison import DEEDS, poison

if TYPE_CHECKING:
    from jobs import Payload
    from worker.dev.chaos.faults.kind import Fault, Targets
    from worker.dev.workload import Connections

BY_REDIS_SHARE: Final = 0.5
KNOWN_EVERY_S: Final = 0.5
"""How often a client without a database sends its job again, until the record has it."""


async def send(deed: str, targets: "Targets", fault: "Fault") -> None:
    """Enqueue a job that does a deed, through a session or through Redis alone."""
    payload = poison(deed, fault.number)
    key = f"{targets.prefix}poison-{fault.number}"
    job_id = job_id_of(redis_id_of(payload.kind, key))
    sent_at = time.time()
    if fault.victim < BY_REDIS_SHARE:
        targets.poisoned[job_id] = Poisoned(deed, sent_at)
        await _send_until_known(targets.connections, payload, key)
        return
    enqueue = partial(targets.connections.client.enqueue, payload, key=key)
    handle = await retry_until_up(enqueue)
    targets.poisoned[handle.id] = Poisoned(deed, sent_at)


async def _send_until_known(connections: "Connections", payload: "Payload", key: str) -> None:
    """Send a job by Redis alone, again and again: until then it is as durable as that Redis."""
    redis_id = redis_id_of(payload.kind, key)
    job = QueuedJob(redis_id, payload.kind, payload_json(payload))

    async def is_known() -> bool:
        await create(connections.redis, [job])
        await asyncio.sleep(KNOWN_EVERY_S)
        async with connections.sessions() as session:
            return bool(await outcomes_of(session, [job_id_of(redis_id)]))

    while not await retry_until_up(is_known):
        pass


KINDS: Final = tuple(
    Kind(
        f"poison:{name}",
        f"a job does this: {(deed.do.__doc__ or '').rstrip('.').lower()}",
        partial(send, name),
        weight=0.5,
        # A process that died is noticed by its leases, and that three times.
        is_slow=deed.exit_code is not None or deed.has_time,
        recovery=Recovery.OF_POISON,
    )
    for name, deed in DEEDS.items()
)
