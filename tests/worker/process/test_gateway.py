"""One port speaks for all processes: live unless one is stuck, ready when all are."""

import os
import socket
from pathlib import Path

import orjson
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.worker.monitoring.samples import sample_metrics
from worker.monitoring.events import Events
from worker.monitoring.http.child import SLOT, SOCKETS, child_socket, socket_of
from worker.monitoring.http.pages import Page, json_page
from worker.monitoring.http.server import Server
from worker.process import gateway as gateway_module
from worker.process.gateway import Gateway, gateway
from worker.settings import Settings


class Child:
    """A process's site with the answers that a test gives it."""

    def __init__(self, *, live=200, ready=200, mode="normal"):
        self.answers = {
            "/livez": json_page(live, {"live": live == 200}),
            "/readyz": json_page(ready, {"ready": ready == 200, "mode": mode, "reasons": []}),
            "/status": json_page(200, {"service": "healthy", "process": {"pid": 7}, "fleet": []}),
        }
        self.metrics = sample_metrics()

    async def find(self, path):
        if path == "/metrics":
            return Page(200, self.metrics.exposition(), "text/plain")
        return self.answers.get(path)


@pytest.fixture
def directory(tmp_path):
    # A Unix socket's path has 108 bytes at most.
    short = Path("/tmp") / f"tg-{os.getpid()}-{tmp_path.name[-6:]}"
    short.mkdir()
    yield short
    for path in short.iterdir():
        path.unlink()
    short.rmdir()


@pytest.fixture
def start(directory):
    servers = []

    def run(*children):
        for slot, child in enumerate(children):
            server = Server(child, socket_of(directory, slot), Events())
            server.start()
            servers.append(server)

    yield run
    for server in servers:
        server.stop()


async def page_of(directory, processes, path):
    page = await Gateway(directory, processes).find(path)
    assert page is not None
    return page


async def ask(directory, processes, path):
    page = await page_of(directory, processes, path)
    return page.status, orjson.loads(page.body)


async def test_all_is_well(directory, start):
    start(Child(), Child())

    assert await ask(directory, 2, "/livez") == (
        200,
        {"live": True, "process_0": {"live": True}, "process_1": {"live": True}},
    )
    assert (await ask(directory, 2, "/readyz"))[0] == 200


async def test_one_blocked_process_makes_all_not_live(directory, start):
    start(Child(), Child(live=503))

    assert (await ask(directory, 2, "/livez"))[0] == 503


async def test_a_process_that_does_not_answer_is_stuck(directory, start, monkeypatch):
    monkeypatch.setattr(gateway_module, "CHILD_ANSWER_MAX_S", 0.2)
    start(Child())
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(socket_of(directory, 1)))
        silent.listen()
        status, answer = await ask(directory, 2, "/livez")

    assert (status, answer["process_1"]) == (503, {"reasons": ["does not answer"]})


async def test_a_process_that_is_being_restarted_is_no_reason_to_kill_the_others(directory, start):
    start(Child())

    assert (await ask(directory, 2, "/livez"))[0] == 200
    status, answer = await ask(directory, 2, "/readyz")
    assert (status, answer["process_1"]) == (503, {"reasons": ["not running"]})


async def test_one_degraded_process_makes_the_whole_degraded_and_ready(directory, start):
    start(Child(), Child(mode="degraded"))

    status, answer = await ask(directory, 2, "/readyz")

    assert (status, answer["mode"]) == (200, "degraded")


async def test_metrics_of_all_processes_are_one_page_told_apart_by_a_label(directory, start):
    first, second = Child(), Child()
    first.metrics.count("relay.sent", {"jobs": 3, "rebuilt": True})
    second.metrics.count("relay.sent", {"jobs": 4, "rebuilt": False})
    start(first, second)

    page = await page_of(directory, 3, "/metrics")

    families = {f.name: f for f in text_string_to_metric_families(page.body.decode())}
    sent = {s.labels["process"]: s.value for s in families["teller_relay_sent"].samples}
    assert sent == {"0": 3.0, "1": 4.0}
    assert families["teller_relay_sent"].type == "counter"
    assert families["teller_jobs_queue_wait_seconds"].type == "histogram"


async def test_status_is_one_service_with_several_processes(directory, start):
    start(Child(), Child())

    status, answer = await ask(directory, 3, "/status")

    assert (status, answer["service"]) == (200, "healthy")
    assert answer["processes"] == [{"pid": 7}, {"pid": 7}, {"reasons": ["not running"]}]


async def test_before_any_child_runs_it_answers_all_the_same(directory):
    for path in ("/livez", "/readyz", "/status"):
        assert (await ask(directory, 2, path))[0] in {200, 503}
    assert (await page_of(directory, 2, "/metrics")).status == 200
    assert await Gateway(directory, 2).find("/") is None


def test_children_learn_from_the_environment_where_to_serve(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://x/y")
    monkeypatch.setenv("REDIS_URL", "redis://x")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert child_socket() is None
    with gateway(Settings(health_port=port), 2, Events()):
        directory = Path(os.environ[SOCKETS])
        monkeypatch.setenv(SLOT, "1")
        assert child_socket() == socket_of(directory, 1)
        assert directory.stat().st_mode & 0o077 == 0
        with socket.create_connection(("127.0.0.1", port), timeout=5):
            pass
    assert not directory.exists()
    assert SOCKETS not in os.environ
