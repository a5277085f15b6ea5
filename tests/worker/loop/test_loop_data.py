"""Whatever clients write: the loop lives, other jobs go on, and what is no job is set aside."""

import asyncio
import json
import logging

import pytest
from arq.jobs import Job
from arq.utils import timestamp_ms
from arq.worker import func
from redis.exceptions import ResponseError

from worker.loop import claimer, quarantine
from worker.loop.connection import Connection
from worker.loop.decode import OUT_OF_TRIES, UNREADABLE

from .kit import JSON, BlockingJob, eventually, within_deadline


async def fine(ctx, *args):
    return "fine"


FINE = func(fine, name="fine")


def body(**fields):
    now = timestamp_ms()
    return json.dumps({"t": None, "f": "fine", "a": [], "k": {}, "et": now, **fields})


async def put(redis, job_id, text=None, score=1):
    member = job_id.encode() if isinstance(job_id, str) else job_id
    await redis.set(b"arq:job:" + member, text or body())
    await redis.zadd("arq:queue", {job_id: score})


async def healthy(redis, count=5):
    """Five jobs that are behind everything else in the queue."""
    for number in range(count):
        await put(redis, f"healthy-{number}", score=timestamp_ms())


async def all_healthy(redis, count=5):
    async def done():
        ids = [f"arq:result:healthy-{number}" for number in range(count)]
        return await redis.exists(*ids) == count

    await eventually(done)


def start(fleet, **options):
    return fleet.start(FINE, poll_delay=0.02, allow_abort_jobs=True, **JSON, **options)


async def plant_hash(redis, key):
    await redis.hset(key, "field", "value")


async def plant_list(redis, key):
    await redis.rpush(key, "value")


async def plant_text(redis, key):
    await redis.set(key, "value")


PLANTED = [plant_hash, plant_list, plant_text]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize(
    "prefix", ["arq:in-progress:", "arq:retry:", "arq:claims:", "arq:unknown:"]
)
async def test_a_key_of_a_wrong_type_beside_a_job_does_not_even_keep_that_job_from_running(
    redis, fleet, caplog, prefix, plant
):
    await put(redis, "x")
    await plant(redis, prefix + "x")
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)
    assert (
        await Job("x", redis, _deserializer=json.loads).result(timeout=30, poll_delay=0.02)
        == "fine"
    )
    assert "redis is away" not in caplog.text


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("key", ["arq:queue:bell", "arq:abort", "arq:queue:quarantine"])
async def test_a_shared_key_of_a_wrong_type_stops_nobody(redis, fleet, caplog, key, plant):
    await plant(redis, key)
    await healthy(redis)
    await put(redis, b"\xff")
    worker = start(fleet, max_jobs=2)
    await all_healthy(redis)

    async def set_aside():
        return not await redis.zcard("arq:queue")

    await eventually(set_aside)
    assert worker.redis_available
    assert "redis is away" not in caplog.text
    if key.endswith("quarantine"):
        entries = await quarantine.read(redis, "arq:queue")  # which drops what is no entry
        assert [entry.job_id for entry in entries] == [b"\xff"]


@pytest.mark.parametrize("plant", PLANTED[:2], ids=lambda plant: plant.__name__)
async def test_a_body_that_is_no_text_is_set_aside_with_what_it_was(redis, fleet, plant):
    await plant(redis, "arq:job:x")
    await redis.zadd("arq:queue", {"x": 1})
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)
    (entry,) = await quarantine.read(redis, "arq:queue")
    assert entry.job_id == b"x"
    assert entry.body_type == plant.__name__.removeprefix("plant_")
    assert b"value" in entry.body
    assert "wrong type" in entry.reason
    assert not await redis.exists("arq:job:x", "arq:in-progress:x", "arq:claims:x")
    await quarantine.remove(redis, "arq:queue", [entry])
    assert not await redis.exists("arq:queue:quarantine")


@pytest.mark.parametrize("member", [b"\xff\xfe", b"a\xed\xa0\x80", b"\x80" * 5_000])
async def test_an_id_that_is_not_utf_8_is_set_aside_with_its_body(redis, fleet, member):
    await put(redis, member)
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)

    async def set_aside():
        return await quarantine.read(redis, "arq:queue")

    (entry,) = await eventually(set_aside)
    assert member.startswith(entry.job_id)
    assert json.loads(entry.body)["f"] == "fine"
    assert not await redis.exists(b"arq:job:" + member, b"arq:claims:" + member)
    assert await redis.zscore("arq:queue", member) is None


async def test_an_id_of_an_absurd_length_is_set_aside(redis, fleet):
    member = "x" * 100_000
    await put(redis, member)
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)
    (entry,) = await quarantine.read(redis, "arq:queue")
    assert entry.job_id == b"x" * 4096


async def test_a_thousand_bad_members_before_good_ones_do_not_hold_them_up(redis, fleet):
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1_000):
            pipe.hset(f"arq:job:bad-{number}", "x", "y")
            pipe.zadd("arq:queue", {f"bad-{number}": 1})
            pipe.zadd("arq:queue", {b"\xff%d" % number: 1})
        await pipe.execute()
    await healthy(redis)
    worker = start(fleet)
    await all_healthy(redis)

    async def set_aside():
        return await quarantine.count(redis, "arq:queue") == (2_000, 0)

    await eventually(set_aside)
    assert worker.redis_available


async def test_a_full_quarantine_drops_what_comes_and_counts_it(redis, fleet):
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(10_000):
            pipe.hset("arq:queue:quarantine", f"{number:x}", "no entry")
        await pipe.execute()
    await put(redis, b"\xff")
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)

    async def dropped():
        return await quarantine.count(redis, "arq:queue") == (10_000, 1)

    await eventually(dropped)
    assert await quarantine.read(redis, "arq:queue", limit=20_000) == []
    assert await quarantine.count(redis, "arq:queue") == (0, 1)


async def test_a_full_quarantine_whose_count_is_none_stops_nobody(redis, fleet):
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(10_000):
            pipe.hset("arq:queue:quarantine", f"{number:x}", "no entry")
        pipe.hset("arq:queue:quarantine", "dropped", "many")
        await pipe.execute()
    assert await quarantine.count(redis, "arq:queue") == (10_000, 0)
    await put(redis, b"\xff")
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)

    async def dropped():
        return await quarantine.count(redis, "arq:queue") == (10_000, 1)

    await eventually(dropped)


@pytest.mark.parametrize("score", ["-inf", -1e300, -5, 0, 1.5])
async def test_a_job_with_a_score_long_ago_runs_at_once(redis, fleet, score):
    await put(redis, "x", score=score)
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)
    assert await redis.exists("arq:result:x")


@pytest.mark.parametrize("score", ["+inf", 1e300])
async def test_a_job_with_a_score_that_never_comes_waits_and_others_run(redis, fleet, score):
    await put(redis, "x", score=score)
    await healthy(redis)
    worker = start(fleet)
    await all_healthy(redis)
    assert await redis.zscore("arq:queue", "x") == float(score)
    assert not worker.tasks


@pytest.mark.parametrize("at", ["-inf", "+inf", 1e300, -1e300])
async def test_an_abort_of_an_impossible_time_ends_no_worker(redis, fleet, monkeypatch, at):
    await redis.zadd("arq:abort", {"x": at, b"\xff": at, "waits": at})
    await put(redis, "waits", score=timestamp_ms() + 3_600_000)
    await healthy(redis)
    start(fleet)
    await all_healthy(redis)

    async def forgotten():
        return await redis.zrange("arq:abort", 0, -1) == [b"waits"]

    await eventually(forgotten)


async def test_an_abort_is_found_among_any_number_of_others(redis, fleet):
    blocking = BlockingJob()
    worker = fleet.start(blocking.function, poll_delay=0.02, allow_abort_jobs=True, **JSON)
    await put(redis, "here", body(f="blocking"))
    await blocking.wait_started()
    later = timestamp_ms() + 1_000
    await redis.mset({f"arq:job:elsewhere-{number}": "x" for number in range(1_500)})
    await redis.zadd("arq:abort", {f"elsewhere-{number}": later for number in range(1_500)})
    await redis.zadd("arq:abort", {"here": timestamp_ms()})

    async def aborted():
        return await redis.zcard("arq:abort") == 1_500

    await eventually(aborted)
    assert worker.jobs_failed == 1


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
async def test_aborts_of_a_wrong_type_are_replaced_so_that_clients_can_abort(redis, fleet, plant):
    blocking = BlockingJob()
    await plant(redis, "arq:abort")
    await put(redis, "here", body(f="blocking"))
    worker = fleet.start(blocking.function, poll_delay=0.02, allow_abort_jobs=True, **JSON)
    await blocking.wait_started()

    async def can_be_aborted():
        return not await redis.exists("arq:abort")

    await eventually(can_be_aborted)
    await redis.zadd("arq:abort", {"here": timestamp_ms()})

    async def aborted():
        return worker.jobs_failed

    await eventually(aborted)


async def test_kept_aborts_do_not_hide_orphans_behind_them(redis, fleet, monkeypatch):
    monkeypatch.setattr("worker.loop.aborts.ORPHAN_CHECK_INTERVAL_S", 0.0)
    hour_ago = timestamp_ms() - 3_600_000
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(3_000):
            pipe.set(f"arq:job:waits-{number}", "x")
            pipe.zadd("arq:abort", {f"waits-{number}": hour_ago - 1, f"gone-{number}": hour_ago})
        await pipe.execute()
    start(fleet)

    async def forgotten():
        return await redis.zcard("arq:abort") == 3_000

    await eventually(forgotten)


ABSURD = [
    {"et": 1_700_000_000_000_000},
    {"et": -1},
    {"et": 253_402_300_800_000},
    {"et": 10**18},
    {"et": True},
    {"et": None},
    {"et": "now"},
    {"t": "one"},
    {"t": -1},
    {"t": 10**12},
    {"t": True},
    {"f": ["fine"]},
    {"f": None},
    {"a": "text"},
    {"a": {"x": 1}},
    {"k": []},
    {"k": None},
]


@pytest.mark.parametrize("fields", ABSURD, ids=str)
async def test_a_body_with_a_field_of_a_wrong_type_or_range_ends_once(redis, fleet, fields):
    endings = []

    async def confirm(ending):
        endings.append((ending.job_id, ending.reason, json.loads(ending.body)["a"] is not None))
        return ending.outcome

    await put(redis, "x", body(**fields))
    await healthy(redis)
    worker = fleet.start(FINE, poll_delay=0.02, job_deserializer=json.loads, job_serializer=text_of)
    worker.ends.confirm_end = confirm
    await all_healthy(redis)

    async def ended():
        return await redis.zscore("arq:queue", "x") is None

    await eventually(ended)
    assert endings == [("x", UNREADABLE, True)]


def text_of(value):
    return json.dumps(value, default=str).encode()


async def test_an_absurd_count_of_tries_is_no_count(redis, fleet):
    for job_id, tries in (("x", "9223372036854775807"), ("y", "-7"), ("z", "1e3")):
        await put(redis, job_id)
        await redis.set(f"arq:retry:{job_id}", tries)
    await put(redis, "many")
    await redis.set("arq:retry:many", 999_999)
    worker = fleet.start(FINE, poll_delay=0.02, job_deserializer=json.loads, job_serializer=text_of)
    reasons = []

    async def confirm(ending):
        reasons.append((ending.job_id, ending.reason))
        return ending.outcome

    worker.ends.confirm_end = confirm

    async def ended():
        return not await redis.zcard("arq:queue")

    await eventually(ended)
    for job_id in "xyz":
        assert json.loads(await redis.get(f"arq:result:{job_id}"))["r"] == "fine"
    assert reasons == [("many", OUT_OF_TRIES)]


async def test_a_body_that_ends_the_program_when_it_is_read_is_unreadable(redis, fleet):
    def read(text):
        if text == b"exit":
            raise SystemExit(3)
        return json.loads(text)

    await put(redis, "x", "exit")
    await put(redis, "deep", "[" * 100_000 + "]" * 100_000)
    await healthy(redis)
    worker = fleet.start(FINE, poll_delay=0.02, job_deserializer=read, job_serializer=text_of)
    await all_healthy(redis)

    async def ended():
        return not await redis.zcard("arq:queue")

    await eventually(ended)
    assert worker.jobs_failed == 2


async def test_a_large_body_is_fetched_by_its_own_job(redis, fleet):
    large = "x" * (3 * claimer.BODY_BYTES_MAX)
    lengths = []

    async def measure(ctx, text):
        lengths.append(len(text))

    for number in range(10):
        await put(redis, f"large-{number}", body(f="measure", a=[large]))
    await put(redis, "small", body(f="measure", a=["x"]))
    worker = fleet.make(func(measure, name="measure"), burst=True, **JSON)
    await within_deadline(worker.main())
    assert sorted(lengths) == [1, *[len(large)] * 10]


async def test_a_claim_ends_once_its_bodies_are_large_together(redis, fleet):
    medium = "x" * (claimer.BODY_BYTES_MAX // 2)
    for number in range(30):
        await put(redis, str(number), body(a=[medium]))
    worker = fleet.make(FINE, max_jobs=30, **JSON)
    worker._pool = redis
    batch = await worker.fetcher.claimer.claim(redis, 30, aborts=False)
    size = sum(len(claim.body) for claim in batch.claims)
    assert batch.more
    assert claimer.BODIES_BYTES_MAX < size < 2 * claimer.BODIES_BYTES_MAX
    await redis.flushall()


async def refuse():
    raise ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value")


async def test_a_command_that_is_refused_does_not_count_as_a_lost_redis():
    connection = Connection()
    with pytest.raises(ResponseError):
        await connection.call(refuse())
    assert connection.available


async def test_a_queue_of_a_wrong_type_counts_as_a_redis_that_cannot_serve(redis, fleet):
    await redis.set("arq:queue", "text")
    worker = start(fleet)

    async def noticed():
        return not worker.redis_available

    await eventually(noticed)
    await redis.delete("arq:queue")
    await healthy(redis)
    await all_healthy(redis)
    assert worker.redis_available


async def test_the_end_of_a_job_is_stored_though_its_queue_became_another_type(redis, fleet):
    blocking = BlockingJob()
    fleet.start(blocking.function, poll_delay=0.02, **JSON)
    await put(redis, "here", body(f="blocking"))
    await blocking.wait_started()
    await redis.set("arq:queue", "text")
    blocking.unblock()

    async def stored():
        return await redis.exists("arq:result:here")

    await eventually(stored)
    assert not await redis.exists("arq:job:here", "arq:in-progress:here", "arq:claims:here")
    await redis.delete("arq:queue")


async def test_patience_follows_the_line():
    connection = Connection()

    async def slow(seconds):
        await asyncio.sleep(seconds)

    usual = connection.patience_s = 0.01
    with pytest.raises(TimeoutError):
        await connection.attempt(slow(60))
    assert connection.patience_s == 2 * usual
    await connection.attempt(slow(0), size=1_000_000)
    assert connection.patience_s == 2 * usual  # a large answer says nothing about small ones


async def test_unknown_functions_are_said_once_and_looked_at_seldom(redis, fleet, caplog):
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(2_000):
            pipe.set(f"arq:job:{number}", body(f="newer"))
            pipe.zadd("arq:queue", {str(number): 1})
        await pipe.execute()
    start(fleet, max_jobs=50)

    async def put_back():
        return await redis.zcount("arq:queue", "-inf", timestamp_ms()) == 0

    await eventually(put_back)
    assert (
        len(
            [
                r
                for r in caplog.records
                if r.levelno == logging.WARNING and "newer" in r.getMessage()
            ]
        )
        == 1
    )
    scores = [score for _, score in await redis.zrange("arq:queue", 0, -1, withscores=True)]
    assert max(scores) - min(scores) > 10_000
