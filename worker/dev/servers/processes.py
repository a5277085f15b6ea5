"""Server processes: started so that they end with us, inspected, and signalled with their children.

`Guarded` starts a process under the reaper. The functions below it work on any process by its id,
be it no child of ours.
"""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, cast

from . import reaper
from .directory import ServerLog, private
from .errors import ServerError
from .reaper import children, signal_all

# How long a server may take to end after its stop signal, before the reaper sends SIGKILL.
GRACE_S = 10.0
CLOSE_TIMEOUT_S = GRACE_S + 5.0
REAPER_START_TIMEOUT_S = 15.0

POLL_INTERVAL_S = 0.01
KILL_TIMEOUT_S = 10.0

_PROC = Path("/proc")
_HAS_PROC = Path("/proc/self/stat").exists()  # not on macOS


class Guarded:
    """A running command whose parent is the reaper: it ends when this process does.

    The reaper stops it as soon as a pipe closes whose write end only this process holds.
    """

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
        self._pipe = private(cast("IO[bytes]", self._reaper.stdin))
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
        self._pipe.close()
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


def was_started_with(pid: int, *arguments: str) -> bool:
    """Whether `pid` lives, and its command line has exactly these arguments in a row."""
    if not _HAS_PROC:
        return f" {' '.join(arguments)} " in f" {_ps('args', pid)} "
    line = _command_line(pid)
    starts = range(len(line) - len(arguments) + 1)
    return any(tuple(line[start : start + len(arguments)]) == arguments for start in starts)


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    if not _HAS_PROC:
        return _ps("stat", pid)[:1] not in ("", "Z")
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


def is_known(pid: int) -> bool:
    """Whether the kernel still knows the process id, be it a zombie's or another user's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def program_of(pid: int) -> str:
    """The name of the program a process was started as; empty for a zombie."""
    return Path(_command_line(pid)[0] if _HAS_PROC else _ps("comm", pid)).name


def freeze(pid: int) -> list[int]:
    """Stop a process, then those it forked; stopped, it cannot fork more meanwhile."""
    signal_all([pid], signal.SIGSTOP)
    family = [pid, *children(pid)]
    signal_all(family, signal.SIGSTOP)
    return family


def thaw(pid: int) -> None:
    """Undo `freeze`."""
    signal_all([*children(pid), pid], signal.SIGCONT)


def kill(pid: int) -> None:
    """End a process and those it forked at once, as a power cut would."""
    family = freeze(pid)
    signal_all(family, signal.SIGKILL)
    if not wait_gone(family, KILL_TIMEOUT_S):
        raise ServerError(f"Processes {family} survived SIGKILL: stop them by hand.")


def wait_gone(pids: list[int], timeout_s: float) -> bool:
    """Whether all of them ended in time."""
    deadline = time.monotonic() + timeout_s
    while any(is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_INTERVAL_S)
    return True


def _command_line(pid: int) -> list[str]:
    """Never empty: a process that is gone, or a zombie, has one empty argument."""
    try:
        arguments = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        arguments = b""
    return [os.fsdecode(argument) for argument in arguments.split(b"\0")]


def _ps(column: str, pid: int) -> str:
    reply = subprocess.run(  # noqa: S603  # fixed program, numeric argument
        ["/bin/ps", "-ww", "-o", f"{column}=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return reply.stdout.strip()


def _environment() -> dict[str, str]:
    """Ours, without what would change the servers' defaults or the language of their logs."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return {**kept, "LC_ALL": "C"}
