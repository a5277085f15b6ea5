"""Several processes, one port: the supervisor asks its children, and answers for all of them.

Each child serves on a Unix socket in a private directory (`worker.monitoring.http.child`). The
whole is live while no child is stuck: a child that ended is being restarted by its supervisor, so
an orchestrator must not restart the others. It is ready when all children are. Metrics are merged
under a label `process`.
"""

import asyncio
import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from worker.monitoring.http.child import SOCKETS, socket_of
from worker.monitoring.http.pages import OK, UNAVAILABLE, Page, json_page
from worker.monitoring.http.server import Server
from worker.monitoring.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.monitoring.events import Events
    from worker.settings import Settings

CHILD_ANSWER_MAX_S: Final = 2.0
CHILD_ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024


@contextmanager
def gateway(settings: "Settings", processes: int, events: "Events") -> "Iterator[None]":
    """Answer for the children of this process while the block runs.

    Args:
        settings: with the host and port; a port of 0 means that nobody asks.
        processes: how many children there are.
        events: where a port that is taken is reported; the block runs all the same.
    """
    if settings.health_port == 0:
        yield
        return
    directory = Path(tempfile.mkdtemp(prefix="teller-health-"))
    os.environ[SOCKETS] = str(directory)
    address = (settings.health_host, settings.health_port)
    server = Server(Gateway(directory, processes), address, events)
    try:
        try:
            server.start()
        except OSError as error:
            events.emit("health.unavailable", address=str(address), error=error.strerror)
        yield
    finally:
        server.stop()
        os.environ.pop(SOCKETS, None)
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one child answered; without a status where it ended, or does not answer."""

    slot: int
    status: int | None
    body: bytes
    stuck: bool = False
    """Whether it runs, and does not answer in time."""

    def content(self) -> Any:  # noqa: ANN401 - whatever JSON can hold
        """Return the answer's JSON, or the reason that there is none."""
        if self.status is None:
            return {"reasons": ["does not answer" if self.stuck else "not running"]}
        return orjson.loads(self.body)


class Gateway:
    """A site whose pages are made of the children's."""

    def __init__(self, directory: Path, processes: int) -> None:
        self._directory = directory
        self._processes = processes

    async def find(self, path: str) -> Page | None:
        """Return the page at a path, or None."""
        if path not in {"/livez", "/readyz", "/metrics", "/status"}:
            return None
        answers = await asyncio.gather(*(self._ask(slot, path) for slot in range(self._processes)))
        if path == "/metrics":
            return Page(OK, merged(answers), CONTENT_TYPE)
        if path == "/status":
            return json_page(OK, _status(answers))
        content = {f"process_{answer.slot}": answer.content() for answer in answers}
        if path == "/livez":
            live = not any(answer.stuck or answer.status == UNAVAILABLE for answer in answers)
            return json_page(OK if live else UNAVAILABLE, {"live": live, **content})
        return _readiness(answers, content)

    async def _ask(self, slot: int, path: str) -> Answer:
        try:
            async with asyncio.timeout(CHILD_ANSWER_MAX_S):
                status, body = await _fetch(socket_of(self._directory, slot), path)
        except TimeoutError:
            return Answer(slot, None, b"", stuck=True)
        except (OSError, ValueError, asyncio.IncompleteReadError):
            return Answer(slot, None, b"")
        return Answer(slot, status, body)


def _readiness(answers: list[Answer], content: dict[str, Any]) -> Page:
    ready = all(answer.status == OK for answer in answers)
    modes = {answer.content().get("mode") for answer in answers if answer.status is not None}
    mode = "degraded" if "degraded" in modes else "normal"
    return json_page(OK if ready else UNAVAILABLE, {"ready": ready, "mode": mode, **content})


def _status(answers: list[Answer]) -> dict[str, Any]:
    """Return the service's state as the first child that answers sees it, and each child's own."""
    statuses = [answer.content() for answer in answers]
    seen = next((status for status in statuses if "service" in status), {"service": "unknown"})
    processes = [status.get("process", status) for status in statuses]
    return {**seen, "process": None, "processes": processes}


async def _fetch(socket: Path, path: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_unix_connection(socket, limit=CHILD_ANSWER_BYTES_MAX)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: child\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.read(CHILD_ANSWER_BYTES_MAX)
        while more := await reader.read(CHILD_ANSWER_BYTES_MAX):
            body += more
        return int(head.split(b" ", 2)[1]), body
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def merged(answers: list[Answer]) -> bytes:
    """Return the metrics of all children, distinguished by the label `process`."""
    families: dict[str, Metric] = {}
    for answer in answers:
        if answer.status != OK:
            continue
        for family in text_string_to_metric_families(answer.body.decode()):
            into = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {**sample.labels, "process": str(answer.slot)}
                into.add_sample(sample.name, labels, sample.value)
    registry = CollectorRegistry()
    registry.register(_Merged(list(families.values())))
    return generate_latest(registry)


class _Merged(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
