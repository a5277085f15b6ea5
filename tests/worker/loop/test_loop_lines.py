"""Lines and servers that are slow or restrict: patience follows the line, and the rest is said."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
from arq.connections import ArqRedis, RedisSettings
from arq.worker import func
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from worker.loop import connection as connection_module
from worker.loop.connection import Connection
from worker.loop.doorbell import Doorbell
from worker.loop.scripts import DISOWN

from .kit import JSON, eventually, listening, within_deadline


async def measure(ctx, text):
    return len(text)


MEASURE = func(measure, name="measure")


async def put(redis, job_id, text):
    fields = {"t": None, "f": "measure", "a": [text], "k": {}, "et": 1}
    await redis.set(f"arq:job:{job_id}", json.dumps(fields))
    await redis.zadd("arq:queue", {job_id: 1})


class SlowLine:
    """A line to a server: each direction takes its time, and carries so many bytes a second."""

    def __init__(self, port, delay_s=0.0, bytes_per_s=None):
        self._port = port
        self._delay_s = delay_s
        self._bytes_per_s = bytes_per_s
        self._busy_until = 0.0
        self._tasks = set()

    @asynccontextmanager
    async def open(self):
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    async def _connected(self, reader, writer):
        await asyncio.sleep(self._delay_s)
        their_reader, their_writer = await asyncio.open_connection("127.0.0.1", self._port)
        for source, target in ((reader, their_writer), (their_reader, writer)):
            task = asyncio.ensure_future(self._carry(source, target))
            self._tasks.add(task)

    async def _carry(self, source, target):
        try:
            while chunk := await source.read(16_384):
                await asyncio.sleep(self._delay_s + self._transfer_s(len(chunk)))
                target.write(chunk)
                await target.drain()
        except ConnectionError:
            return
        finally:
            target.close()

    def _transfer_s(self, size):
        if self._bytes_per_s is None:
            return 0.0
        now = asyncio.get_running_loop().time()
        self._busy_until = max(self._busy_until, now) + size / self._bytes_per_s
        return self._busy_until - now


async def done(redis, count):
    async def all_done():
        return len(await redis.keys("arq:result:*")) == count

    await eventually(all_done, deadline_s=60)


async def test_bodies_that_a_slow_line_carries_only_one_by_one_are_all_run_once(
    valkey, redis, fleet, monkeypatch
):
    # The line takes three times as long for all bodies as a small answer may take.
    monkeypatch.setattr(connection_module, "COMMAND_TIMEOUT_S", 0.5)
    monkeypatch.setattr(connection_module, "PATIENCE_MAX_S", 0.5)
    for number in range(5):
        await put(redis, number, "x" * 300_000)
    line = SlowLine(valkey.port, bytes_per_s=1_000_000)
    async with line.open() as port:
        settings = RedisSettings(port=port, conn_retries=0)
        worker = fleet.start(MEASURE, redis_settings=settings, **JSON)
        worker.connection.patience_s = 0.5
        await done(redis, 5)
        assert worker.jobs_complete == 5
        assert worker.jobs_retried == 0
        await within_deadline(worker.close())


async def test_round_trips_of_almost_a_second_are_lived_with(valkey, redis, fleet):
    for number in range(20):
        await put(redis, number, "x")
    line = SlowLine(valkey.port, delay_s=0.4)
    async with line.open() as port:
        settings = RedisSettings(port=port, conn_retries=0, conn_timeout=5)
        worker = fleet.start(MEASURE, redis_settings=settings, **JSON)
        await done(redis, 20)
        await within_deadline(worker.close())


async def restricted(redis, *rules):
    await redis.execute_command("ACL", "SETUSER", "worker", "reset", "on", ">secret", *rules)


async def test_a_user_of_the_queues_keys_and_no_dangerous_command_is_enough(
    valkey, redis, fleet, caplog
):
    await restricted(redis, "~arq:*", "+@all", "-@dangerous", "-@admin")
    settings = RedisSettings(port=valkey.port, username="worker", password="secret", conn_retries=0)
    worker = fleet.start(MEASURE, redis_settings=settings, **JSON)
    await listening(redis, 1)
    await put(redis, "a", "x")
    await redis.zadd("arq:queue:bell", {"ring": 0})
    await done(redis, 1)
    assert worker.redis_available
    assert "redis is away" not in caplog.text
    await worker.close()
    await redis.execute_command("ACL", "DELUSER", "worker")


async def test_a_permission_that_is_missing_is_named(valkey, redis, fleet, caplog):
    await restricted(redis, "~arq:*", "+@all", "-evalsha")
    settings = RedisSettings(port=valkey.port, username="worker", password="secret", conn_retries=0)
    worker = fleet.start(MEASURE, redis_settings=settings, **JSON)

    async def said():
        return "redis refuses what the worker needs" in caplog.text

    await eventually(said)
    assert "'evalsha'" in caplog.text
    assert not worker.redis_available
    await worker.close()
    await redis.execute_command("ACL", "DELUSER", "worker")


class Bell:
    """A Redis whose bell answers with errors before it rings, once."""

    single_connection_client = False

    def __init__(self, *errors):
        self._errors = list(errors)
        self._rung = False

    async def bzpopmin(self, *_):
        if self._errors:
            raise self._errors.pop(0)
        if self._rung:
            await asyncio.Event().wait()
        self._rung = True
        return b"bell", b"ring", 0


@pytest.mark.parametrize(
    "error",
    [
        ResponseError("UNBLOCKED force unblock from blocking operation, instance state changed"),
        ResponseError("WRONGTYPE Operation against a key holding the wrong kind of value"),
    ],
    ids=str,
)
async def test_the_bell_is_heard_again_after_a_demotion(monkeypatch, error):
    monkeypatch.setattr("worker.loop.doorbell.PAUSE_S", 0.0)
    awaits_ring, heard = asyncio.Event(), asyncio.Event()
    awaits_ring.set()
    doorbell = Doorbell("bell", Connection(), awaits_ring)
    listening_task = asyncio.ensure_future(doorbell.listen(Bell(error, error), heard.set))  # type: ignore[arg-type]
    await within_deadline(heard.wait())
    listening_task.cancel()
    await asyncio.wait({listening_task})


class Cut:
    """A line to a server that is cut once a script is on its way."""

    def __init__(self, port):
        self._port = port
        self.scripts = 0

    async def connected(self, reader, writer):
        theirs, their_writer = await asyncio.open_connection("127.0.0.1", self._port)
        while chunk := await reader.read(65_536):
            self.scripts += b"EVAL" in chunk
            their_writer.write(chunk)
            answer = await theirs.read(65_536)
            if self.scripts:
                break
            writer.write(answer)
        writer.close()
        their_writer.close()


async def test_a_script_whose_answer_is_lost_is_not_sent_again_behind_the_loops_back(valkey):
    cut = Cut(valkey.port)
    server = await asyncio.start_server(cut.connected, "127.0.0.1", 0)
    client = ArqRedis(
        host="127.0.0.1",
        port=server.sockets[0].getsockname()[1],
        retry=Retry(NoBackoff(), 3),
        retry_on_error=[RedisConnectionError],
    )
    with pytest.raises(RedisConnectionError):
        await DISOWN(client, ("arq:queue", "arq:queue"), ("me", 1, 1))
    assert cut.scripts == 1
    await client.aclose(close_connection_pool=True)
    server.close()
