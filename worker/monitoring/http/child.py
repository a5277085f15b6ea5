"""Where a supervised process serves its pages: a Unix socket per process, in a private directory.

A supervisor names the directory and the process's number in the environment of its children; its
gateway (`worker.process.gateway`) asks every socket, and answers on the one port for all of them.
"""

import os
from pathlib import Path
from typing import Final

SLOT: Final = "TELLER_CHILD_SLOT"
"""The environment's name for a child's number; set in supervised processes only."""
SOCKETS: Final = "TELLER_HEALTH_SOCKETS"
"""The environment's name for the directory of the sockets."""


def child_socket() -> Path | None:
    """Return where this process serves if it is a supervisor's child; None if it stands alone."""
    directory, slot = os.environ.get(SOCKETS), os.environ.get(SLOT)
    return socket_of(Path(directory), slot) if directory and slot else None


def socket_of(directory: Path, slot: int | str) -> Path:
    """Return the socket of the child with a number."""
    return directory / f"{slot}.sock"
