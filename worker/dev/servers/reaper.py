"""The parent of every server: stops it when we die, however we die.

Run as `python -I -S reaper.py SIGNAL GRACE_S -- command...` with standard input a pipe whose
write end only we hold. The kernel closes that pipe even after `kill -9`; the reaper then sends
SIGNAL, and SIGKILL after the grace time. It prints the server's pid, and exits as the server did.

It runs alone, so it imports nothing of ours.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from threading import Thread


def children(pid: int) -> list[int]:
    """The processes whose parent is `pid`."""
    if not Path("/proc/self/stat").exists():  # macOS
        table = subprocess.run(
            ["/bin/ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=False
        )
        rows = [line.split() for line in table.stdout.splitlines()]
        return [int(row[0]) for row in rows if int(row[1]) == pid]
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it may end while we look
            # "pid (name) state parent …", and a name may contain spaces and brackets.
            parent = stat.read_text(errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == pid:
                found.append(int(stat.parent.name))
    return found


def signal_all(pids: list[int], number: signal.Signals) -> None:
    """Send a signal to each process that still exists."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def main(number: signal.Signals, grace_s: float, command: list[str]) -> int:
    """Run the command, and stop it when standard input closes or we are told to stop."""
    server = subprocess.Popen(  # noqa: S603  # what our own manager asks for
        command, stdin=subprocess.DEVNULL, stdout=sys.stderr, start_new_session=True
    )

    def stop() -> None:
        server.send_signal(number)
        # A paused server cannot act on a signal, nor can the processes it forked.
        signal_all([server.pid, *children(server.pid)], signal.SIGCONT)
        time.sleep(grace_s)
        server.kill()

    def stop_when_orphaned() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        stop()

    # In threads, so that the wait below is never interrupted: its end is ours.
    for told in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(told, lambda *_: Thread(target=stop, daemon=True).start())
    Thread(target=stop_when_orphaned, daemon=True).start()
    with suppress(BrokenPipeError):  # whoever wanted to know is dead already
        os.write(sys.stdout.fileno(), f"{server.pid}\n".encode())
    code = server.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    _, signal_name, grace, _, *argv = sys.argv
    sys.exit(main(signal.Signals[signal_name], float(grace), argv))
