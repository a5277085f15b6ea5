"""What nobody should write into Redis: bodies, ids, times and types that no job has.

What came with an id that can be read must be in the record afterwards, unless Redis forgot it.
All of it must be out of Redis, and jobs must go on meanwhile.
"""

import asyncio
import random
import time
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from arq.constants import retry_key_prefix as RETRY_PREFIX  # noqa: N812 - a constant

from jobs._queue import QUEUE
from jobs._wire import ABORTS, BELL_SUFFIX, IN_PROGRESS_PREFIX, JOB_PREFIX, job_id_of
from worker.dev.chaos.faults.kind import Kind, Recovery
from worker.dev.chaos.retrying import retry_until_up
from worker.loop.scripts import CLAIMS_KEY_PREFIX, QUARANTINE_SUFFIX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from worker.dev.chaos.faults.kind import Fault, Targets

    Inject = Callable[[Targets, Fault], Awaitable[None]]

MESSAGES: Final = 8
"""How many of a sort come at a time."""
GONE_MAX_S: Final = 120.0
LOOK_EVERY_S: Final = 0.2
NO_JOB: Final = b'{"t":null,"f":"transfer_funds","a":[{"amount":"1"}],"k":{},"et":1}'
"""A body that can be read, with a payload that does not fit its kind."""
DEEP: Final = 256
HUGE_BYTES: Final = 1024 * 1024

BODIES: Final = (
    b"",
    b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01t\x94N\x8c\x01f\x94s.",  # pickle
    b"not JSON",
    b"\xff\xfe{}",
    b"null",
    b'{"f":1}',
    b'{"t":null,"f":"transfer_funds","a":[NaN],"k":{},"et":1}',
    b'{"t":null,"f":"transfer_funds","a":[1e400],"k":{},"et":1}',
    b'{"t":null,"f":"transfer_funds","a":[{"x":"\\u0000"}],"k":{},"et":1}',
    b'{"t":null,"f":"transfer_funds","a":[{"x":"\\ud800"}],"k":{},"et":1}',
    b'{"t":null,"f":"transfer_funds","a":[1,2],"k":{"x":1},"et":1}',
    b'{"t":null,"f":"transfer_funds","a":[],"k":{},"et":1e300}',
    b'{"t":"x","f":"transfer_funds","a":7,"k":7,"et":"x"}',
    b'{"t":null,"f":"transfer_funds","a":[' + b"[" * DEEP + b"]" * DEEP + b'],"k":{},"et":1}',
    b'{"t":null,"f":"transfer_funds","a":["' + b"x" * HUGE_BYTES + b'"],"k":{},"et":1}',
)
IDS: Final = (b"\xff\xfe\xfd", b"", b"\x00", b"a\nb", "\u202e\U0001f480".encode(), b"x" * 6_000)
DUE_SCORES: Final = ("-inf", "-1e300", "-1", "0", "0.5", "1e-300", "1")
FAR_SCORES: Final = ("+inf", "1e300", "9007199254740993", "1767225600000000")
ABORT_TIMES: Final = ("-inf", "+inf", "1e300", "-1", "0", "1767225600000000")
TRIES: Final = ("1000000000", "9223372036854775807", "-5", "1e400", "many", "")
TYPES: Final = (
    ("RPUSH", "x"),
    ("HSET", "x", "y"),
    ("SADD", "x"),
    ("ZADD", 1, "x"),
    ("XADD", "*", "x", "y"),
)
"""How a key becomes another type than a string."""
SPOILED_PREFIXES: Final = (JOB_PREFIX, IN_PROGRESS_PREFIX, RETRY_PREFIX, CLAIMS_KEY_PREFIX)


@dataclass(frozen=True, slots=True)
class Message:
    """A member of the queue, with what stands beside it."""

    id: bytes
    body: bytes = NO_JOB
    score: str = "1"

    @property
    def key(self) -> bytes:
        """Where its body is."""
        return JOB_PREFIX.encode() + self.id


def _ids(targets: "Targets", fault: "Fault") -> list[bytes]:
    return [f"{targets.prefix}garbage-{fault.number}-{n}".encode() for n in range(MESSAGES)]


async def send_bodies(targets: "Targets", fault: "Fault") -> None:
    """Queue bodies that no worker can read."""
    chance = random.Random(fault.force)  # noqa: S311 - a plan that can be repeated
    bodies = chance.sample(BODIES, MESSAGES)
    ids = _ids(targets, fault)
    await _send(targets, [Message(*pair) for pair in zip(ids, bodies, strict=True)])
    await _until_gone(targets, ids)
    _expect_in_record(targets, ids)


async def send_ids(targets: "Targets", fault: "Fault") -> None:
    """Queue ids that are no text, or not what an id should be."""
    ends = f"-{targets.prefix}{fault.number}".encode()
    ids = [one + ends if one else one for one in IDS]
    await _send(targets, [Message(one) for one in ids])
    await _until_gone(targets, ids)


async def send_scores(targets: "Targets", fault: "Fault") -> None:
    """Queue members at the beginning and at the end of all times; take the last away again."""
    ids = _ids(targets, fault)
    due = [Message(one, score=score) for one, score in zip(ids, DUE_SCORES, strict=False)]
    far = [
        Message(b"far-" + one.id, score=score) for one, score in zip(due, FAR_SCORES, strict=False)
    ]
    await _send(targets, due + far)
    await _until_gone(targets, [message.id for message in due])
    _expect_in_record(targets, [message.id for message in due])
    await _take_away(targets, far)


async def spoil_keys(targets: "Targets", fault: "Fault") -> None:
    """Give the keys beside a job another type than a string."""
    chance = random.Random(fault.force)  # noqa: S311 - as above
    ids = _ids(targets, fault)
    spoiled = {chance.choice(SPOILED_PREFIXES).encode() + one: chance.choice(TYPES) for one in ids}
    await _send(targets, [Message(one) for one in ids], spoiled)
    await _until_gone(targets, ids)
    _expect_in_record(targets, ids)


async def spoil_control_keys(targets: "Targets", fault: "Fault") -> None:
    """Give the queue's other keys another type; after a while, put right what nobody has."""
    keys = {QUEUE + BELL_SUFFIX: b"zset", ABORTS: b"zset", QUEUE + QUARANTINE_SUFFIX: b"hash"}
    redis = targets.connections.redis

    async def spoil() -> None:
        async with redis.pipeline(transaction=True) as pipe:
            for key in keys:
                pipe.delete(key)
                pipe.set(key, "spoiled")
            await pipe.execute()

    async def put_right() -> None:
        for key in keys:
            if await redis.type(key) == b"string":
                await redis.delete(key)

    await retry_until_up(spoil)
    await asyncio.sleep(fault.hold_s)
    await retry_until_up(put_right)


async def spoil_queue(targets: "Targets", fault: "Fault") -> None:
    """Put a string where the queue was; after a while, take it away again."""
    redis = targets.connections.redis

    async def put_right() -> None:
        if await redis.type(QUEUE) == b"string":
            await redis.delete(QUEUE)

    await retry_until_up(lambda: redis.set(QUEUE, "spoiled"))
    await asyncio.sleep(fault.hold_s)
    await retry_until_up(put_right)


async def send_aborts(targets: "Targets", fault: "Fault") -> None:
    """Abort jobs that nobody knows, at times that are none."""
    ids = _ids(targets, fault)
    aborts = [part for pair in zip(ABORT_TIMES, ids, strict=False) for part in pair]
    redis = targets.connections.redis

    async def send() -> None:
        await redis.execute_command("ZADD", ABORTS, *aborts, 0, b"\xff\xfe")  # type: ignore[no-untyped-call]

    await retry_until_up(send)


async def spoil_tries(targets: "Targets", fault: "Fault") -> None:
    """Write absurd counts of tries for jobs that wait."""
    redis = targets.connections.redis
    chance = random.Random(fault.force)  # noqa: S311 - as above

    async def spoil() -> None:
        for member in await redis.zrange(QUEUE, 0, MESSAGES):
            await redis.set(RETRY_PREFIX.encode() + member, chance.choice(TRIES))

    await retry_until_up(spoil)


async def _send(
    targets: "Targets",
    messages: "Sequence[Message]",
    spoiled: "Mapping[bytes, tuple[str | int, ...]]" = MappingProxyType({}),
) -> None:
    async def send() -> None:
        async with targets.connections.redis.pipeline(transaction=True) as pipe:
            for message in messages:
                pipe.set(message.key, message.body)
            for key, (command, *arguments) in spoiled.items():
                pipe.delete(key)
                pipe.execute_command(command, key, *arguments)
            for message in messages:
                pipe.execute_command("ZADD", QUEUE, message.score, message.id)
            await pipe.execute()

    await retry_until_up(send)


async def _until_gone(targets: "Targets", ids: "Sequence[bytes]") -> None:
    """Wait until Redis has neither the members nor their bodies; the end of the run looks again."""
    redis = targets.connections.redis

    async def is_left() -> bool:
        async with redis.pipeline(transaction=True) as pipe:
            pipe.exists(*(JOB_PREFIX.encode() + one for one in ids))
            for one in ids:
                pipe.zscore(QUEUE, one)
            bodies, *scores = await pipe.execute()
        return bool(bodies) or any(score is not None for score in scores)

    deadline = time.monotonic() + GONE_MAX_S
    while await retry_until_up(is_left) and time.monotonic() < deadline:  # noqa: ASYNC110 - Redis sends no event
        await asyncio.sleep(LOOK_EVERY_S)


async def _take_away(targets: "Targets", messages: "Sequence[Message]") -> None:
    redis = targets.connections.redis

    async def take_away() -> None:
        await redis.zrem(QUEUE, *(message.id for message in messages))
        await redis.delete(*(message.key for message in messages))

    await retry_until_up(take_away)


def _expect_in_record(targets: "Targets", ids: "Sequence[bytes]") -> None:
    targets.garbage += [job_id_of(one.decode()) for one in ids]


def _kind(
    sort: str,
    does: str,
    inject: "Inject",
    *,
    hold_s: tuple[float, float] = (0.0, 0.0),
    forgets_queue: bool = False,
) -> Kind:
    return Kind(
        f"garbage:{sort}",
        does,
        inject,
        weight=0.7,
        hold_s=hold_s,
        forgets_queue=forgets_queue,
        recovery=Recovery.OF_GARBAGE,
    )


KINDS: Final = (
    _kind(
        "bodies", "bodies that are no job: no JSON, too deep, too large, wrong types", send_bodies
    ),
    _kind("ids", "ids that are no text, empty, very long", send_ids),
    _kind("scores", "members due at the beginning and at the end of all times", send_scores),
    _kind("keys", "a body, a lease or a count of another type", spoil_keys),
    _kind(
        "control-keys",
        "the bell, the aborts and the quarantine are strings for a while",
        spoil_control_keys,
        hold_s=(1.0, 3.0),
    ),
    _kind(
        "queue-key",
        "a string where the queue was, for a while",
        spoil_queue,
        hold_s=(1.0, 3.0),
        forgets_queue=True,
    ),
    _kind("aborts", "aborts of jobs that nobody knows, at times that are none", send_aborts),
    _kind("tries", "absurd counts of tries of jobs that wait", spoil_tries),
)
