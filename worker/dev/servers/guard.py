"""A process that cannot outlive us: its parent is the reaper, and we hold the reaper's leash."""

import os
import select
import signal
import subprocess
import sys
from typing import IO, cast

from . import reaper
from .errors import ServerError
from .log import ServerLog
from .private import private

# How long a server may take to end after its stop signal, before the reaper sends SIGKILL.
GRACE_S = 10.0
CLOSE_TIMEOUT_S = GRACE_S + 5.0
REAPER_START_TIMEOUT_S = 15.0


class Guarded:
    """A running command; `pid` is the command's own, not the reaper's."""

    def __init__(self, command: list[str], stop_signal: signal.Signals, log: ServerLog) -> None:
        arguments = [stop_signal.name, str(GRACE_S), "--", *command]
        with log.open() as file:
            self._reaper = subprocess.Popen(  # noqa: S603  # our own script, our own command
                [sys.executable, "-I", "-S", reaper.__file__, *arguments],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                cwd=log.path.parent,
                env=_environment(),
                # Ctrl-C in the terminal reaches us alone: servers go last.
                start_new_session=True,
            )
        self._leash = private(cast("IO[bytes]", self._reaper.stdin))
        try:
            self.pid = self._reported_pid(log)
        except BaseException:
            self.close()
            raise

    @property
    def running(self) -> bool:
        """Whether the command has not ended yet."""
        return self._reaper.poll() is None

    def wait(self, timeout_s: float) -> int:
        """The command's exit code; raises `subprocess.TimeoutExpired`."""
        return self._reaper.wait(timeout_s)

    def close(self) -> None:
        """Have the command stopped, and wait for its end."""
        self._leash.close()
        try:
            self._reaper.wait(CLOSE_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._reaper.kill()
            self._reaper.wait()

    def _reported_pid(self, log: ServerLog) -> int:
        with cast("IO[bytes]", self._reaper.stdout) as report:
            readable, _, _ = select.select([report], [], [], REAPER_START_TIMEOUT_S)
            line = report.readline() if readable else b""
        if not line:
            self.close()  # its log is complete only then
            raise ServerError(
                f"The server could not be run. Its log, {log.path}, ends:\n{log.tail()}"
            )
        return int(line)


def _environment() -> dict[str, str]:
    """Ours, without what would change the servers' defaults or the language of their logs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}
