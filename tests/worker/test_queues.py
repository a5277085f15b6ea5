"""Queues with slots of their own, from the client to the row, on real servers."""

import asyncio
from contextlib import asynccontextmanager
from uuid import UUID

import pytest
from arq.connections import ArqRedis
from sqlalchemy import text

from jobs._client.client import Client
from jobs._wire import put, queued_job
from tests.letters import CatalogPrinted, LetterSent, PrintCatalog, a_letter, printing
from worker.app import create_worker
from worker.dev.servers import ValkeyServer
from worker.execution import serializer
from worker.maintenance import relay as relay_module
from worker.maintenance.relay import Relay
from worker.monitoring.events import Events
from worker.settings import Settings, chosen_queues

DEADLINE_S = 60
DEFAULT, REPORTS = "arq:queue", "arq:queue:reports"


@pytest.fixture
async def sessions(sessions, letters):
    """Begin with no jobs; the workers know letters and catalogs."""
    async with sessions() as session, session.begin():
        await session.execute(text("DELETE FROM jobs"))
    return sessions


class Press:
    """What catalogs do in a test: counted, and held until the test lets them go."""

    def __init__(self):
        self.begun = 0
        self.running = 0
        self.peak = 0
        self.open = asyncio.Event()
        self.changed = asyncio.Event()

    async def __call__(self, _ctx):
        self.begun += 1
        self.running += 1
        self.peak = max(self.peak, self.running)
        self.changed.set()
        await self.open.wait()
        self.running -= 1

    async def wait_begun(self, count):
        async with asyncio.timeout(DEADLINE_S):
            while self.begun < count:
                self.changed.clear()
                await self.changed.wait()


@pytest.fixture
def press(monkeypatch):
    press = Press()
    monkeypatch.setattr(printing, "press", press)
    yield press
    press.open.set()


@asynccontextmanager
async def running(database_url, redis_url, *, jobs=None, **options):
    """Run a worker; yield it and its events by name."""
    heard: dict[str, asyncio.Event] = {}

    def note(name, _fields):
        heard.setdefault(name, asyncio.Event()).set()

    settings = Settings(
        DATABASE_URL=database_url, REDIS_URL=redis_url, health_port=0, drain_grace_s=0, **options
    )
    worker = create_worker(settings, handle_signals=False, subscribers=[note], jobs=jobs)
    task = asyncio.create_task(worker.async_run())
    try:
        await hear(heard, "worker.started")
        yield worker, heard
    finally:
        await worker.close()
        await asyncio.wait({task})


async def hear(heard, name):
    async with asyncio.timeout(DEADLINE_S):
        await heard.setdefault(name, asyncio.Event()).wait()


async def queue_of(sessions, job_id):
    async with sessions() as session:
        return await session.scalar(text("SELECT queue FROM jobs WHERE id = :id"), {"id": job_id})


async def test_fifty_slow_reports_do_not_delay_a_transfer(
    sessions, redis, redis_url, database_url, press
):
    async with running(database_url, redis_url, queues="default=4,reports=2"):
        client = Client(redis, sessions=sessions)
        catalogs = await client.enqueue_many([PrintCatalog(pages=n + 1) for n in range(50)])
        await press.wait_begun(2)
        letter = await client.enqueue(a_letter())
        assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
        # The letter is sent, and of the catalogs the first two are still in the press.
        assert (press.begun, press.peak) == (2, 2)
        assert [await queue_of(sessions, job.id) for job in (catalogs[0], letter)] == [
            "reports",
            "default",
        ]
        press.open.set()
        assert await catalogs[-1].result(DEADLINE_S) == CatalogPrinted(pages=50)
        assert press.peak == 2


async def test_an_arq_client_reaches_a_queue_by_its_key_and_a_job_runs_where_it_came(
    sessions, redis_url, database_url, press
):
    arq = ArqRedis.from_url(redis_url)
    arq.job_serializer = serializer.serialize
    arq.job_deserializer = serializer.JobReader(frozenset({"send_letter"}))
    try:
        async with running(database_url, redis_url, queues="reports=1"):
            letter = {"address": "12 High Street"}
            job = await arq.enqueue_job("send_letter", letter, _queue_name=REPORTS)
            assert (await job.result(DEADLINE_S, poll_delay=0.01))["letter_id"]
            assert await queue_of(sessions, UUID(job.job_id)) == "reports"
    finally:
        await arq.aclose(close_connection_pool=True)


async def test_a_relay_sends_the_jobs_of_its_queue_alone_to_the_key_of_their_queue(
    sessions, redis, monkeypatch
):
    monkeypatch.setattr(relay_module, "GRACE", relay_module.GRACE * 0)
    silent = Client(None, sessions=sessions)
    letter, catalog = [await silent.enqueue(one) for one in (a_letter(), PrintCatalog(pages=1))]
    default, reports = (
        Relay(sessions, redis, DEFAULT, Events(), q) for q in ("default", "reports")
    )
    await default.round()
    assert await redis.zrange(DEFAULT, 0, -1) == [letter.redis_id.encode()]
    assert await redis.zcard(REPORTS) == 0
    await reports.round()
    assert await redis.zrange(REPORTS, 0, -1) == [catalog.redis_id.encode()]
    assert await redis.zcard(DEFAULT) == 1


async def test_without_redis_workers_claim_the_jobs_of_their_own_queues_alone(
    sessions, database_url, tmp_path, press
):
    with ValkeyServer(tmp_path / "valkey") as valkey:
        async with (
            running(database_url, valkey.url, queues="default=1") as (first, one),
            running(database_url, valkey.url, queues="reports=1") as (second, other),
        ):
            await asyncio.to_thread(valkey.kill)
            await hear(one, "redis.lost")
            await hear(other, "redis.lost")
            silent = Client(None, sessions=sessions)
            catalogs = await silent.enqueue_many([PrintCatalog(pages=n + 1) for n in range(3)])
            letter = await silent.enqueue(a_letter())
            await press.wait_begun(1)
            assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
            assert (press.begun, len(first.claims.held), len(second.claims.held)) == (1, 0, 1)
            press.open.set()
            assert await catalogs[2].result(DEADLINE_S) == CatalogPrinted(pages=3)


async def test_without_redis_a_queue_keeps_its_own_slots(sessions, database_url, tmp_path, press):
    with ValkeyServer(tmp_path / "valkey") as valkey:
        queues = "default=2,reports=1"
        async with running(database_url, valkey.url, queues=queues) as (worker, heard):
            await asyncio.to_thread(valkey.kill)
            await hear(heard, "redis.lost")
            silent = Client(None, sessions=sessions)
            await silent.enqueue_many([PrintCatalog(pages=n + 1) for n in range(5)])
            await press.wait_begun(1)
            letters = [await silent.enqueue(a_letter(address=f"{n} Low Street")) for n in range(4)]
            for letter in letters:
                assert await letter.result(DEADLINE_S) == LetterSent(letter_id=letter.id)
            assert (press.begun, worker.queues[REPORTS].free_count) == (1, 0)


async def test_a_cancel_reaches_a_job_in_its_queue(sessions, redis, press):
    client = Client(redis)
    job = await client.enqueue(PrintCatalog(pages=1))
    assert await redis.zcard(REPORTS) == 1
    assert await job.status() == "queued"
    await put(redis, [queued_job("other", "send_letter", "{}", None)])
    assert await redis.zrange(DEFAULT, 0, -1) == [b"other"]


def settings_of(**options):
    return Settings(DATABASE_URL="postgresql://h/d", REDIS_URL="redis://h", **options)


def test_a_command_chooses_queues_and_the_settings_their_slots():
    assert chosen_queues("reports", "default=16,reports=2") == "reports=2"
    assert chosen_queues("mail,reports=7", "default=16,reports=2") == "mail,reports=7"


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ("default=0", "from 1 to 1000"),
        ("default=many", "from 1 to 1000"),
        ("Reports=1", "lower-case"),
        ("default=1,,mail=1", "lower-case"),
        ("default=1,default=2", "twice"),
        ("bell=1", "a key beside each queue"),
        ("default=900,reports=900", "more than 1000"),
    ],
)
def test_queues_that_cannot_be_served_are_refused_with_the_reason(queues, said):
    with pytest.raises(ValueError, match=said):
        settings_of(queues=queues)


def test_a_queue_without_a_number_has_the_slots_of_one_process():
    assert settings_of(concurrency=5).slots == {"default": 5}
    settings = settings_of(concurrency=5, queues="default, reports=2")
    assert settings.slots == {"default": 5, "reports": 2}
    assert settings.pool_size == 5 + 2 + 4
