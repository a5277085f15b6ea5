"""Read the health of the worker on this machine; the exit code is for a HEALTHCHECK.

Quick, because it imports little: no settings object, no HTTP library, no driver.
"""

import os
import socket
import sys
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from worker.cli._options import command_line

app = command_line()

PORT_DEFAULT: Final = "8089"
PORT_MAX: Final = 65_535
ANSWER_MAX_S: Final = 3.0
ANYWHERE: Final = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound
OK: Final = b"200"

Live = Annotated[bool, typer.Option("--live", help="Ask whether its event loop runs.")]
Ready = Annotated[bool, typer.Option("--ready", help="Ask whether it takes jobs (the default).")]


@app.command()
def check(live: Live = False, ready: Ready = False) -> None:  # noqa: FBT002 - flags of the command line
    """Check the worker on this machine.

    Exit code 0 if the worker is ready (with --live: alive), else 1.
    """
    host, port = _address()
    if port == 0:
        _fail("health is switched off: set TELLER_HEALTH_PORT to a port")
    try:
        status, body = _ask(host, port, "/livez" if live and not ready else "/readyz")
    except TimeoutError:
        _fail(f"the worker on {host}:{port} does not answer: it is stuck; restart it")
    except OSError:
        _fail(
            f"no worker answers on {host}:{port}: start one with `python -m worker run`, "
            "or set TELLER_HEALTH_PORT to the one that runs"
        )
    sys.stdout.write(f"{body}\n")
    raise typer.Exit(0 if status == OK else 1)


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    raise typer.Exit(1)


def _address() -> tuple[str, int]:
    """Return where the local worker's health server is, by the worker's own settings."""
    given = {**_env_file(), **os.environ}
    host = given.get("TELLER_HEALTH_HOST", "127.0.0.1")
    port = given.get("TELLER_HEALTH_PORT") or PORT_DEFAULT
    if not (port.isascii() and port.isdigit() and int(port[:6]) <= PORT_MAX):
        _fail(f"TELLER_HEALTH_PORT is a number from 0 to {PORT_MAX}, not {port[:20]!r}")
    return ANYWHERE.get(host, host), int(port)


def _env_file() -> dict[str, str]:
    """Return the plain assignments of `.env`, if there is one."""
    path = Path(".env")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def _ask(host: str, port: int, path: str) -> tuple[bytes, str]:
    with socket.create_connection((host, port), timeout=ANSWER_MAX_S) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
        answer = b""
        while more := connection.recv(65_536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    parts = head.split(b" ", 2)
    return (parts[1] if len(parts) > 1 else b"", body.decode("utf-8", "replace").strip())
