"""What cannot be a job ends in the record as a dead one, and nothing else is held up by it."""

import json
import uuid

import pytest
from sqlalchemy import text

from db.quarantine import keep
from worker.loop import quarantine as loop_quarantine
from worker.loop.quarantine import Entry
from worker.maintenance import quarantine as module
from worker.maintenance.quarantine import PAUSE_S, Quarantine
from worker.monitoring.events import Events
from worker.monitoring.state import WorkerState

QUEUE = "arq:queue"


@pytest.fixture
def emitted():
    return []


@pytest.fixture
def state():
    return WorkerState()


@pytest.fixture
async def duty(sessions, redis, emitted, state):
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    events = Events(lambda name, fields: emitted.append((name, fields)))
    return Quarantine(sessions, redis, QUEUE, events, state)


def entry(name, job_id, body=b"body", reason="the body has a wrong type"):
    return Entry(name, job_id, reason, 1_700_000_000_000, "list", body, 5_000)


@pytest.fixture
def held(monkeypatch):
    """Return the entries of the quarantine, by name, which a test may fill."""
    held = {}

    async def read(_redis, _queue, limit):
        return list(held.values())[:limit]

    async def remove(_redis, _queue, entries):
        for one in entries:
            del held[one.field]

    async def count(_redis, _queue):
        return len(held), 0

    for function in (read, remove, count):
        monkeypatch.setattr(loop_quarantine, function.__name__, function)
    return held


async def jobs(sessions):
    async with sessions() as session:
        rows = await session.execute(
            text("SELECT state, redis_id, payload, errors FROM jobs WHERE kind = 'malformed'")
        )
        return list(rows)


async def test_an_entry_is_a_dead_job_with_what_was_there(duty, sessions, held, emitted):
    held["a"] = entry("a", b"\xff\xfe", b"\x00\x01", "the id: not UTF-8")
    held["b"] = entry("b", b"order-42", b"{}")
    assert await duty.step() == PAUSE_S

    by_id = {row.redis_id: row for row in await jobs(sessions)}
    assert set(by_id) == {None, "order-42"}
    unnamed = by_id[None]
    assert unnamed.state == "dead"
    assert unnamed.payload == {
        "id": {"base64": "//4="},
        "body": {"base64": "AAE="},
        "body_type": "list",
        "body_bytes": 5_000,
        "set_aside_at_ms": 1_700_000_000_000,
    }
    assert unnamed.errors[0]["error"] == "MalformedJob"
    assert unnamed.errors[0]["message"] == "the id: not UTF-8"
    assert by_id["order-42"].payload["body"] == {"text": "{}"}
    assert held == {}
    assert [name for name, _ in emitted] == ["queue.quarantined"] * 2


async def test_members_that_only_begin_alike_are_two_dead_jobs(duty, sessions, redis):
    from worker.loop.claimer import Claimer
    from worker.loop.claims import Claims

    await redis.zadd(QUEUE, {b"x" * 70_000 + end: 1 for end in (b"a", b"b")})
    await Claimer(Claims("worker", 8.0), QUEUE).claim(redis, 10, aborts=False)
    await duty.step()

    assert [row.redis_id for row in await jobs(sessions)] == [None, None]


async def test_an_entry_that_comes_again_is_one_dead_job(duty, sessions, held):
    for _ in range(2):
        held["a"] = entry("a", b"\xff")
        await duty.step()

    assert len(await jobs(sessions)) == 1


async def test_a_job_that_has_a_row_is_sent_to_the_queue_again(duty, sessions, held):
    job_id = uuid.uuid4()
    async with sessions() as session, session.begin():
        await session.execute(
            text(
                "INSERT INTO jobs (id, kind, payload, dispatched_at) "
                "VALUES (:id, 'send_letter', '{}', now())"
            ),
            {"id": job_id},
        )
    held["a"] = entry("a", str(job_id).encode())
    await duty.step()

    async with sessions() as session:
        row = (await session.execute(text("SELECT state, dispatched_at FROM jobs"))).one()
    assert tuple(row) == ("queued", None)


async def test_one_that_the_record_refuses_stops_no_other(duty, sessions, held, state, monkeypatch):
    for number in range(5):
        held[str(number)] = entry(str(number), f"job-{number}".encode())

    async def refuse_one(session, job_id, **what):
        if what["redis_id"] == "job-2":
            raise ValueError
        await keep(session, job_id, **what)

    monkeypatch.setattr(module, "keep", refuse_one)
    assert await duty.step() == PAUSE_S

    assert len(await jobs(sessions)) == 4
    assert list(held) == ["2"]
    assert state.quarantined == 1
    assert state.warnings() == ["1 members of the queue are in quarantine"]


async def test_many_that_the_record_refuses_stand_in_nobodys_way(duty, sessions, held, monkeypatch):
    monkeypatch.setattr(module, "BATCH_MAX", 2)
    for number in range(5):
        held[str(number)] = entry(str(number), f"job-{number}".encode())
    refused = {"job-0", "job-1", "job-2"}

    async def refuse(session, job_id, **what):
        if what["redis_id"] in refused:
            raise ValueError
        await keep(session, job_id, **what)

    monkeypatch.setattr(module, "keep", refuse)
    for _ in range(3):
        await duty.step()
    assert list(held) == ["0", "1", "2"]

    refused.clear()
    for _ in range(3):
        await duty.step()
    assert held == {}


@pytest.mark.parametrize(
    "odd",
    [{"reason": 5}, {"type": None}, {"at_ms": "1e9"}, {"size": 10**400}, {"id": 5}, {"body": "x"}],
    ids=str,
)
async def test_an_entry_that_the_loop_did_not_write_is_removed(duty, redis, sessions, odd):
    sound = {"id": "00", "reason": "why", "at_ms": "1", "type": "string", "body": "", "size": 1}
    await redis.hset(f"{QUEUE}:quarantine", "odd", json.dumps(sound | odd))
    await redis.hset(f"{QUEUE}:quarantine", "sound", json.dumps(sound))
    await duty.step()

    assert len(await jobs(sessions)) == 1
    assert await loop_quarantine.count(redis, QUEUE) == (0, 0)


async def test_what_the_loop_sets_aside_is_kept(duty, sessions, redis, state):
    from worker.loop.claimer import Claimer
    from worker.loop.claims import Claims

    await redis.lpush("arq:job:list", 1)
    await redis.zadd(QUEUE, {"list": 1, b"\xff": 1})
    await redis.set(b"arq:job:\xff", b"{}")
    claimer = Claimer(Claims("worker", 8.0), "arq:queue")
    batch = await claimer.claim(redis, 10, aborts=False)
    await claimer.set_aside(redis, batch)
    await duty.step()

    assert {row.redis_id for row in await jobs(sessions)} == {None, "list"}
    assert await loop_quarantine.count(redis, QUEUE) == (0, 0)
