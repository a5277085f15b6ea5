"""A real PgBouncer in front of the tests' PostgreSQL, from Debian's own package.

Fetched by apt into the cache, and unpacked there: nothing is installed on the machine.
"""

import os
import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from sqlalchemy import make_url

from tests.servers import NoServerError, cache
from worker.dev.servers.programs import unprivileged
from worker.dev.servers.server import HOST, Server

PACKAGES = ("pgbouncer", "libc-ares2", "libevent-2.1-7")
FETCH_S = 120
SERVER_CONNECTIONS = 4
"""Of the pooler to PostgreSQL, for however many clients: so they do share sessions."""


def program():
    """Return PgBouncer and the folder of its libraries; fetched when it is nowhere."""
    installed = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if installed:
        return Path(installed), None
    folder = cache() / "pgbouncer"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}-{os.getpid()}")
        fresh.mkdir(parents=True)
        try:
            _fetch(fresh)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    libraries = next(folder.glob("usr/lib/*/libcares.so.2")).parent
    return folder / "usr" / "sbin" / "pgbouncer", libraries


def _fetch(folder):
    try:
        for package in PACKAGES:
            _run(["apt-get", "download", package], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg-deb", "--extract", package, folder], folder)
    except (OSError, subprocess.SubprocessError) as error:
        raise NoServerError(f"apt has no PgBouncer for us: {error}") from error


def _run(command, folder):
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=FETCH_S)


class PgBouncer(Server):
    """PgBouncer in transaction mode.

    Args:
        directory: its own.
        url: the server behind it.
        settings: of its configuration, beside those that it needs.
    """

    name = "PgBouncer"
    url_start = "postgresql://postgres@"
    url_end = "/postgres"
    stop_signal = signal.SIGTERM

    def __init__(self, directory, url, **settings):
        super().__init__(directory)
        self._behind = make_url(url)
        self._settings = settings
        self._file = self.directory / "pgbouncer.ini"

    def of(self, url):
        """Return the URL of the same database by way of the pooler."""
        through = make_url(url).set(host=HOST, port=self.port)
        return through.render_as_string(hide_password=False)

    @property
    def _pid_file(self):
        return self.directory / "pid"

    @property
    def _signature(self):
        return (str(self._file),)

    def _prepare(self):
        users = self.directory / "users"
        users.write_text('"postgres" ""\n"teller_worker" ""\n"teller_caller" ""\n')
        self._pid_file.unlink(missing_ok=True)

    def _command(self, port):
        settings = {
            "listen_addr": HOST,
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self.directory / "users",
            "pidfile": self._pid_file,
            "pool_mode": "transaction",
            "default_pool_size": SERVER_CONNECTIONS,
            "max_client_conn": 200,
            **self._settings,
        }
        lines = "\n".join(f"{name} = {value}" for name, value in settings.items())
        self._file.write_text(
            f"[databases]\n* = host={self._behind.host} port={self._behind.port}\n"
            f"[pgbouncer]\n{lines}\n"
        )
        binary, libraries = program()
        environment = ["env", f"LD_LIBRARY_PATH={libraries}"] if libraries else []
        account = unprivileged(Path("/bin/true"))
        return [*account.prefix, *environment, str(binary), str(self._file)]

    def _ready(self, process, port):  # noqa: ARG002 - Valkey needs the process
        with suppress(OSError), socket.create_connection((HOST, port), 1):
            return True
        return False
