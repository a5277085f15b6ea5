"""The server answers what is asked, refuses what is not, and survives everything."""

import socket
import time
from http import HTTPStatus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.examples import examples
from worker.monitoring.events import Events
from worker.monitoring.http import server as server_module
from worker.monitoring.http.pages import Page, json_page
from worker.monitoring.http.server import CONNECTIONS_MAX, REQUEST_BYTES_MAX, Server

WAIT_S = 10
ALLOWED = {200, 400, 404, 405, 431}


class Site:
    async def find(self, path):
        if path == "/fails":
            raise RuntimeError("a page that cannot be made")
        return json_page(200, {"path": path}) if path in {"/livez", "/"} else None


@pytest.fixture(scope="module")
def emitted():
    return []


@pytest.fixture(scope="module")
def serving(tmp_path_factory, emitted):
    events = Events(lambda name, fields: emitted.append((name, fields)))
    path = tmp_path_factory.mktemp("s") / "s"
    server = Server(Site(), path, events)
    server.start()
    yield path
    server.stop()


def exchange(path, request):
    """Send bytes to a server's socket, and return every byte of the answer."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_S)
        connection.connect(str(path))
        try:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has answered, and closed, before everything was sent
        answer = b""
        try:
            while more := connection.recv(65_536):
                answer += more
        except ConnectionResetError:
            pass
        return answer


def status(answer):
    return int(answer.split(b" ", 2)[1])


def test_a_page_is_answered_with_its_length_and_the_connection_is_closed(serving):
    answer = exchange(serving, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")

    head, _, body = answer.partition(b"\r\n\r\n")
    assert status(answer) == 200
    assert body == b'{"path":"/livez"}\n'
    assert f"content-length: {len(body)}".encode() in head
    assert b"connection: close" in head


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        (b"GET /livez?verbose=1 HTTP/1.1", 200),
        (b"GET /livez HTTP/1.0", 200),
        (b"GET /nothing HTTP/1.1", 404),
        (b"GET /livez/ HTTP/1.1", 404),
        (b"GET http://x/livez HTTP/1.1", 404),
        (b"POST /livez HTTP/1.1", 405),
        (b"OPTIONS * HTTP/1.1", 405),
        (b"GET /livez HTTP/x", 400),
        (b"\x16\x03\x01\x02\x00", 400),
        (b"GET /" + b"a" * REQUEST_BYTES_MAX * 2 + b" HTTP/1.1", 431),
    ],
)
def test_what_is_asked_decides_the_status(serving, request_line, expected):
    assert status(exchange(serving, request_line + b"\r\nHost: x\r\n\r\n")) == expected


def test_head_has_no_body(serving):
    answer = exchange(serving, b"HEAD /livez HTTP/1.1\r\nHost: x\r\n\r\n")

    assert status(answer) == 200
    assert answer.endswith(b"\r\n\r\n")


def test_a_page_that_fails_ends_its_own_connection_alone_and_is_reported(serving, emitted):
    assert exchange(serving, b"GET /fails HTTP/1.1\r\nHost: x\r\n\r\n") == b""
    assert emitted == [("health.request_failed", {"error": "RuntimeError"})]
    assert status(exchange(serving, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")) == 200


def test_a_slow_client_is_cut_off(serving, monkeypatch):
    monkeypatch.setattr(server_module, "REQUEST_TIME_MAX_S", 0.2)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_S)
        connection.connect(str(serving))
        connection.sendall(b"GET /livez HT")
        assert connection.recv(100) == b""


def test_many_idle_clients_cannot_keep_it_from_answering_for_long(serving, monkeypatch):
    monkeypatch.setattr(server_module, "REQUEST_TIME_MAX_S", 0.3)
    idle = []
    for _ in range(CONNECTIONS_MAX + 10):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(serving))
        idle.append(connection)
    deadline = time.monotonic() + WAIT_S
    answer = b""
    while not answer and time.monotonic() < deadline:
        answer = exchange(serving, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
    for connection in idle:
        connection.close()

    assert status(answer) == 200


verbs = st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"BREW", b""])
paths = st.sampled_from([b"/livez", b"/", b"*", b"//", b"/%00", b"/../etc"]) | st.binary(
    max_size=40
)
headers = st.lists(
    st.tuples(
        st.sampled_from([b"Host", b"Content-Length", b"Transfer-Encoding", b"Expect", b"Upgrade"])
        | st.binary(max_size=10),
        st.sampled_from([b"x", b"1", b"-1", b"chunked", b"100-continue"]) | st.binary(max_size=20),
    ),
    max_size=4,
)
almost_http = st.builds(
    lambda verb, path, version, lines, body: (
        b" ".join((verb, path, version))
        + b"\r\n"
        + b"".join(name + b": " + value + b"\r\n" for name, value in lines)
        + b"\r\n"
        + body
    ),
    verbs,
    paths,
    st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2", b""]),
    headers,
    st.binary(max_size=60),
)


# Ten thousand requests: two thousand examples of five.
@pytest.mark.slow
@pytest.mark.examples
@settings(max_examples=examples(2_000), deadline=None)
@given(st.lists(almost_http | st.binary(max_size=200), min_size=5, max_size=5))
def test_no_bytes_at_all_get_a_500_or_end_the_server(serving, requests):
    for request in requests:
        answer = exchange(serving, request)
        # Silence is an answer only to bytes that never became a request.
        assert answer == b"" or status(answer) in ALLOWED

    assert status(exchange(serving, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")) == 200


def test_a_taken_port_is_an_error_at_once():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            Server(Site(), taken.getsockname(), Events()).start()


def test_it_serves_on_the_port_that_it_shows_until_it_is_stopped():
    server = Server(Site(), ("127.0.0.1", 0), Events())
    server.start()
    with socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    server.stop()
    server.stop()

    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), timeout=WAIT_S)


def test_every_status_it_may_send_has_a_name():
    assert {HTTPStatus(code).phrase for code in ALLOWED}
    assert Page(200, b"").content_type == "application/json"
