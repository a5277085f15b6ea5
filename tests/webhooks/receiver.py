"""A receiver of webhooks: a real HTTP server that answers what a test tells it to."""

import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Received:
    """One request as it came."""

    path: str
    headers: dict
    body: bytes


@dataclass
class Receiver:
    """What came, and what the next answers are; 200 when none is set."""

    url: str
    requests: list = field(default_factory=list)
    answers: deque = field(default_factory=deque)

    def answer(self, *answers):
        """Answer the next requests with these pairs of a status and headers."""
        self.answers.extend(answers)


@contextmanager
def receiving():
    """Run a receiver on a free port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.requests.append(Received(self.path, headers, body))
            status, extra = receiver.answers.popleft() if receiver.answers else (200, {})
            self.send_response(status)
            for name, value in {"content-length": "0", **extra}.items():
                self.send_header(name, value)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Receiver(f"http://127.0.0.1:{server.server_port}/hook")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
