"""PostgreSQL in a directory of its own."""

import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from . import processes
from .errors import ServerError
from .processes import Guarded
from .programs import Account, major_version, postgres_binaries, unprivileged
from .server import HOST, Server

CONNECTIONS_MAX = 200
INITDB_TIMEOUT_S = 60.0

_PROGRAM = "postgres"
_UNFINISHED = "unfinished-"
_INITDB = (
    *("--username=postgres", "--auth=trust", "--encoding=UTF8"),
    *("--no-sync", "--no-instructions"),
)
# Letters of every language, by the server's own tables; the system's know fewer, and differ.
_BUILTIN_LOCALE = ("--locale=C.UTF-8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
_BUILTIN_LOCALE_SINCE = 17
_OLDER_LOCALE = ("--locale=C",)
# The line of postmaster.pid that says what the server is doing; pg_ctl reads it too.
_STATUS_LINE = 7
# What spares waiting and writing; with synchronous_commit off, `kill()` would lose commits.
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": 0,
}


class PostgresServer(Server):
    """A PostgreSQL server with one superuser, `postgres`, and no password.

    `durable=False` spares tests the wait for the disk. Commits then survive `kill()`, as they do
    not depend on the server process once written; they do not survive a crash of the machine.
    """

    name: ClassVar[str] = "PostgreSQL"
    url_start: ClassVar[str] = "postgresql://postgres@"
    url_end: ClassVar[str] = "/postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast" shutdown

    def __init__(
        self, directory: Path, *, durable: bool = True, max_connections: int = CONNECTIONS_MAX
    ) -> None:
        super().__init__(directory)
        self._durable = durable
        self._max_connections = max_connections

    @property
    def _pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    @property
    def _signature(self) -> tuple[str, ...]:
        return ("-D", str(self.data))

    @cached_property
    def _binaries(self) -> Path:
        return postgres_binaries()

    @cached_property
    def _account(self) -> Account:
        return unprivileged(self._binaries / _PROGRAM)

    def _prepare(self) -> None:
        for remains in self.directory.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(remains, ignore_errors=True)
        if not self.data.exists():
            self._create_data()
        self._forget_stale_pid()

    def _command(self, port: int) -> list[str]:
        settings = {
            "listen_addresses": HOST,
            "port": port,
            # No socket file: nothing to clean up after a crash, and no limit on path lengths.
            "unix_socket_directories": "",
            "max_connections": self._max_connections,
            "deadlock_timeout": "200ms",
            "timezone": "UTC",
            "log_timezone": "UTC",
            **({} if self._durable else _NOT_DURABLE),
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        program = str(self._binaries / _PROGRAM)
        return [*self._account.prefix, program, "-D", str(self.data), *options]

    def _ready(self, process: Guarded, port: int) -> bool:  # noqa: ARG002  # Valkey needs the port
        with suppress(OSError):
            lines = self._pid_file.read_text().splitlines()
            if len(lines) > _STATUS_LINE and lines[0] == str(process.pid):
                return lines[_STATUS_LINE].strip() == "ready"
        return False

    def _create_data(self) -> None:
        """Under another name first, so that a half-made cluster is never taken for a whole one."""
        self._account.give(self.directory)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=self.directory))
        try:
            self._account.give(unfinished)
            self._initdb(unfinished)
            unfinished.rename(self.data)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise

    def _initdb(self, data: Path) -> None:
        program = str(self._binaries / "initdb")
        is_older = major_version(self._binaries / _PROGRAM) < _BUILTIN_LOCALE_SINCE
        locale = _OLDER_LOCALE if is_older else _BUILTIN_LOCALE
        command = [*self._account.prefix, program, f"--pgdata={data}", *_INITDB, *locale]
        initdb = Guarded(command, signal.SIGTERM, self.log)
        try:
            code = initdb.wait(INITDB_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            initdb.close()
        if code != 0:
            raise ServerError(
                f"initdb failed in {self.directory}. "
                f"Its log, {self.log.path}, ends:\n{self.log.tail()}"
            )

    def _forget_stale_pid(self) -> None:
        """Process ids come round again, in containers at once.

        PostgreSQL refuses to start while any process has the id its last postmaster had. We hold
        the lock, so a process that is no PostgreSQL at all is not that postmaster.
        """
        pid = self._recorded_pid()
        if pid is None or not processes.is_known(pid):
            return  # PostgreSQL's own judgement is the better one
        if processes.program_of(pid) != _PROGRAM:
            self._pid_file.unlink(missing_ok=True)
