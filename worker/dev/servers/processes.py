"""Processes that are not our children: who they are, and signals to whole families of them."""

import os
import signal
import subprocess
import time
from pathlib import Path

from .errors import ServerError
from .reaper import children, signal_all

POLL_INTERVAL_S = 0.01
KILL_TIMEOUT_S = 10.0

_PROC = Path("/proc")
_HAS_PROC = Path("/proc/self/stat").exists()  # not on macOS


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
