"""One worker process: what `python -m worker run` replaces itself by.

The process is new, so that the libraries of the command line take no memory in it. Settings come
from the environment.
"""

from worker.process.signals import hold_signals

if __name__ == "__main__":
    hold_signals()  # before the imports below, which take a second

import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

from worker.app import create_worker
from worker.errors import TellerError, report_error
from worker.monitoring.logs import configure_all_logs
from worker.process.memory import freeze_heap_once_started
from worker.process.signals import is_ignored, release_signals
from worker.process.supervisor import stop_with_supervisor
from worker.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs import Job

BURST: Final = "--burst"


def command(*, burst: bool) -> list[str]:
    """Return the command line of one worker process."""
    return [sys.executable, "-m", "worker.process", *([BURST] if burst else [])]


def become_worker(*, burst: bool) -> None:
    """Replace this process by a worker; it never returns."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, command(burst=burst))  # noqa: S606 - no shell is what we want


def main(jobs: "Mapping[str, Job] | None" = None) -> int:
    """Run the worker until a signal drains it, and return the exit code.

    Args:
        jobs: by kind, those that it runs; None: all that are registered.
    """
    try:
        settings = load_settings()
        configure_all_logs(settings.log_level, settings.log_format)
        stop_with_supervisor()
        burst = BURST in sys.argv[1:]
        worker = create_worker(
            settings, burst=burst, subscribers=[freeze_heap_once_started], jobs=jobs
        )
        if not is_ignored(signal.SIGHUP):
            drain = partial(worker.handle_sig_wait_for_completion, signal.SIGHUP)
            worker.loop.add_signal_handler(signal.SIGHUP, drain)
        # The loop runs this first of all: from then on a signal meets a worker that has begun.
        worker.loop.call_soon(release_signals)
        worker.run()
    except TellerError as error:
        return report_error(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
