"""What PostgreSQL and Valkey share: one server process, its directory, its port, start and stop."""

import signal
import socket
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Self

from . import processes
from .directory import DirectoryLock, ServerLog
from .errors import EmbeddedError, ServerError
from .processes import CLOSE_TIMEOUT_S, GRACE_S, Guarded
from .reaper import signal_all

HOST = "127.0.0.1"
# Long enough for a crash recovery on a busy machine.
START_TIMEOUT_S = 60.0
# A port can be taken between the probe and the server's own bind.
START_ATTEMPTS_MAX = 10
RETRY_PAUSE_S = 0.2

_PORT_TAKEN = "Address already in use"


class _PortTakenError(ServerError):
    """Another process bound the port first."""


class Server(ABC):
    """A server in one directory: `data/`, `server.log`, `port` and `lock`.

    It listens on a port of 127.0.0.1: the same as the last time, where that is free. It cannot
    outlive this process. Any local user can connect, so it is for development, never a service.
    """

    name: ClassVar[str]
    url_start: ClassVar[str]
    url_end: ClassVar[str]
    stop_signal: ClassVar[signal.Signals]

    def __init__(self, directory: Path) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "data"
        self.log = ServerLog(self.directory / "server.log")
        self._lock = DirectoryLock(self.directory / "lock")
        self._process: Guarded | None = None
        self._port: int | None = None

    @property
    def running(self) -> bool:
        """Whether the server process lives; a paused one does."""
        return self._process is not None and self._process.running

    @property
    def pid(self) -> int:
        """The process id of the server itself."""
        if self._process is None or not self._process.running:
            raise ServerError(f"{self.name} in {self.directory} is not running: start it first.")
        return self._process.pid

    @property
    def port(self) -> int:
        """The port, known from the first start on."""
        if self._port is None:
            raise ServerError(f"{self.name} in {self.directory} has no port yet: start it first.")
        return self._port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{self.url_start}{HOST}:{self.port}{self.url_end}"

    @property
    def left_url(self) -> str | None:
        """Where clients connected the last time, if a start would listen there again."""
        port = self._last_port()
        return None if port is None else f"{self.url_start}{HOST}:{port}{self.url_end}"

    def start(self) -> None:
        """Bring the server up, ready for clients; harmless when it is.

        A server that an earlier process left behind in this directory is stopped first.
        """
        if self.running:
            return
        self._claim()
        try:
            self._halt()  # what is left of this object's last server, or of another's
            self._prepare()
            self._launch_until_it_stays()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Shut down cleanly and release the directory; harmless when stopped."""
        if not self._lock.held:
            return
        try:
            self._halt()
        finally:
            self._lock.release()

    def kill(self) -> None:
        """End the server and all it forked at once, as a power cut would."""
        processes.kill(self.pid)
        self._halt()

    def restart(self) -> None:
        """Stop cleanly, then start on the same port."""
        if self._lock.held:
            self._halt()
        self.start()

    def pause(self) -> None:
        """Freeze the server: connections stay open, nothing answers."""
        processes.freeze(self.pid)

    def resume(self) -> None:
        """Undo `pause`."""
        processes.thaw(self.pid)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop."""
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make the directory ready for a start."""

    @abstractmethod
    def _command(self, port: int) -> list[str]:
        """The command that runs the server in the foreground."""

    @abstractmethod
    def _ready(self, process: Guarded, port: int) -> bool:
        """Whether that very process serves clients."""

    @property
    @abstractmethod
    def _pid_file(self) -> Path:
        """Where the server writes its process id."""

    @property
    @abstractmethod
    def _signature(self) -> tuple[str, ...]:
        """Arguments in a row that only the server of this directory was started with."""

    def _claim(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise EmbeddedError(f"{self.directory} cannot be used: {error}") from error

    def _launch_until_it_stays(self) -> None:
        for attempt in range(START_ATTEMPTS_MAX):
            port = self._port or self._last_port() or free_port()
            try:
                self._launch(port)
            except _PortTakenError:
                self._halt()
                if attempt + 1 == START_ATTEMPTS_MAX:
                    raise
                time.sleep(RETRY_PAUSE_S)
            else:
                self._port = port
                self._port_file.write_text(f"{port}\n")
                return

    @property
    def _port_file(self) -> Path:
        return self.directory / "port"

    def _last_port(self) -> int | None:
        """Return the port of the start before, if it is free: addresses in use stay right."""
        try:
            port = int(self._port_file.read_text())
        except (OSError, ValueError):
            return None
        return port if is_free(port) else None

    def _launch(self, port: int) -> None:
        self._process = process = Guarded(self._command(port), self.stop_signal, self.log)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._ready(process, port):
            if not process.running:
                raise self._failure("ended while starting")
            if time.monotonic() > deadline:
                raise self._failure(f"was not ready after {START_TIMEOUT_S:.0f} s")
            time.sleep(processes.POLL_INTERVAL_S)

    def _failure(self, what: str) -> ServerError:
        tail = self.log.tail()
        kind = _PortTakenError if _PORT_TAKEN in tail else ServerError
        return kind(f"{self.name} {what}. Its log, {self.log.path}, ends:\n{tail}")

    def _halt(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            # It may end at any moment, so whether it runs is looked at once.
            if process.running:
                processes.thaw(process.pid)
            process.close()
        self._settle()

    def _settle(self) -> None:
        """Wait until nothing is left of the last server.

        After `kill -9` of its owner it may be still starting, its pid not yet on record, and its
        reaper about to stop it.
        """
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        self._end_leftover()
        while not self.log.is_silent():
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Processes of an earlier {self.name} still write to {self.log.path}: "
                    "stop them, or choose another directory."
                )
            time.sleep(processes.POLL_INTERVAL_S)
            self._end_leftover()

    def _end_leftover(self) -> None:
        """Stop a server of ours whose reaper was killed; nothing else is ever signalled."""
        pid = self._recorded_pid()
        if pid is None or not processes.was_started_with(pid, *self._signature):
            return
        try:
            signal_all([pid], self.stop_signal)
            processes.thaw(pid)
            if not processes.wait_gone([pid], GRACE_S):
                processes.kill(pid)
        except PermissionError as error:
            raise ServerError(
                f"{self.name} (process {pid}) of another user still runs in {self.directory}: "
                "stop it, or choose another directory."
            ) from error

    def _recorded_pid(self) -> int | None:
        try:
            return int(self._pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1 at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError):
            return False
        return True
