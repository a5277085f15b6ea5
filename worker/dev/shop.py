"""A service that hears of the ends of jobs: it listens on this machine and checks signatures."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final
from zlib import crc32

from jobs._webhooks.messages import new_secret, sign

BUSY_S: Final = 1
"""So long the shop asks to be left alone where it refuses a message."""
POLL_INTERVAL_S: Final = 0.02


@dataclass
class Shop:
    """Where it listens, and what it heard."""

    url: str
    secret: str
    is_often_busy: bool
    """Whether it refuses the first delivery of about every other message: 503 and Retry-After."""
    heard: Counter[str] = field(default_factory=Counter)
    """How often it took each message, by its `webhook-id`."""
    refused: set[str] = field(default_factory=set)
    """What it was once too busy to take."""
    forged: int = 0
    """Messages without a signature that fits."""

    def answer(
        self, message_id: str, sent_at: int, body: bytes, signatures: list[str]
    ) -> HTTPStatus:
        """Note a message, and return what is answered."""
        if sign(self.secret, message_id, sent_at, body) not in signatures:
            self.forged += 1
            return HTTPStatus.BAD_REQUEST
        is_new = message_id not in self.heard and message_id not in self.refused
        if self.is_often_busy and is_new and crc32(message_id.encode()) % 2:
            self.refused.add(message_id)
            return HTTPStatus.SERVICE_UNAVAILABLE
        self.heard[message_id] += 1
        return HTTPStatus.NO_CONTENT


@contextmanager
def listening(*, is_often_busy: bool = False) -> Iterator[Shop]:
    """Have a shop listen on a free port of this machine for as long as the block lasts."""
    shop = Shop("", new_secret(), is_often_busy)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sent = self.headers["webhook-id"], int(self.headers["webhook-timestamp"])
            status = shop.answer(*sent, body, self.headers["webhook-signature"].split())
            self.send_response(status)
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                self.send_header("retry-after", str(BUSY_S))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing: a summary does."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    shop.url = f"http://127.0.0.1:{server.server_port}/hooks"
    thread = threading.Thread(target=server.serve_forever, args=(POLL_INTERVAL_S,))
    thread.start()
    try:
        yield shop
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
