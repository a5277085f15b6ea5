"""Signals in the first instants of a process: held back until its handlers are ready.

Imports take a second, in which SIGTERM would kill the process, or would be lost in one that is
number 1 in its container: the kernel drops what such a process has no handler for, unless it is
blocked. A blocked signal waits, also through an `exec`, and arrives once it is released.
"""

import signal
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Each drains the worker. SIGHUP comes when a terminal is closed."""


def hold_signals() -> None:
    """Have the signals that stop a worker wait, from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def release_signals() -> None:
    """Let them arrive, those that waited at once."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def is_stop_pending() -> bool:
    """Return whether one waits."""
    return not signal.sigpending().isdisjoint(STOP_SIGNALS)


def is_ignored(number: signal.Signals) -> bool:
    """Return whether whoever started this process wants a signal ignored, as `nohup` does."""
    return signal.getsignal(number) is signal.SIG_IGN
