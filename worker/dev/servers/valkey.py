"""Valkey 9 in a directory of its own."""

import shutil
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from .errors import ServerError
from .processes import Guarded
from .programs import valkey_binary
from .server import HOST, Server

PROBE_TIMEOUT_S = 1.0
REPLY_BYTES_MAX = 64 * 1024

# QUIT makes the server close, so the reply has an end.
_PROBE = b"PING\r\nINFO server\r\nQUIT\r\n"


class ValkeyServer(Server):
    """A Valkey server; with `append_only` its data survives `kill()`, without it nothing does."""

    name: ClassVar[str] = "Valkey"
    url_start: ClassVar[str] = "redis://"
    url_end: ClassVar[str] = "/0"
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self, directory: Path, *, append_only: bool = True) -> None:
        super().__init__(directory)
        self._append_only = append_only

    def wipe(self) -> None:
        """Delete what was persisted: the next start finds an empty server."""
        if self.running:
            raise ServerError(f"Valkey in {self.directory} is running: stop it, then wipe.")
        was_held = self._lock.held
        self._claim()
        try:
            self._settle()
            shutil.rmtree(self.data, ignore_errors=True)
        finally:
            if not was_held:
                self._lock.release()

    @property
    def _pid_file(self) -> Path:
        return self.data / "valkey.pid"

    @property
    def _signature(self) -> tuple[str, ...]:
        return ("--pidfile", str(self._pid_file))

    def _prepare(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)

    def _command(self, port: int) -> list[str]:
        settings = {
            "bind": HOST,
            "port": str(port),
            "dir": str(self.data),
            "pidfile": str(self._pid_file),
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "everysec",
            "save": "",
            # A queue must refuse work rather than forget some.
            "maxmemory-policy": "noeviction",
            "daemonize": "no",
            # A rewritten title would hide the arguments we know it by.
            "set-proc-title": "no",
        }
        options = [part for name, value in settings.items() for part in (f"--{name}", value)]
        return [str(valkey_binary()), *options]

    def _ready(self, process: Guarded, port: int) -> bool:
        with suppress(OSError):
            reply = _reply(port)
            ours = f"process_id:{process.pid}\r".encode()
            return reply.startswith(b"+PONG") and ours in reply
        return False


def _reply(port: int) -> bytes:
    with (
        socket.create_connection((HOST, port), PROBE_TIMEOUT_S) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.sendall(_PROBE)
        return stream.read(REPLY_BYTES_MAX)
