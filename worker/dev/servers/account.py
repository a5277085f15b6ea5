"""Who PostgreSQL runs as: it refuses to be root, so root steps down for it.

First choice is a user namespace: no account is added and every file stays root's. Where the
kernel or a container forbids that, the account `nobody`. Both only prefix the command, and
exec it, so the process that results is still the server itself.
"""

import os
import pwd
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import ServerError

# Any id but 0 will do: it exists only inside the namespace.
NAMESPACE_ID = 1000
PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Account:
    """How to run a command as somebody else, and who must own the files for it."""

    prefix: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None

    def give(self, path: Path) -> None:
        """Hand a file or a directory to the account, if it is not ours already."""
        if self.owner:
            os.chown(path, *self.owner)


def unprivileged(program: Path) -> Account:
    """An account that is not root and can run the program."""
    if os.geteuid() != 0:
        return Account()
    for account in _candidates():
        if _works([*account.prefix, str(program), "--version"]):
            return account
    raise ServerError(
        f"PostgreSQL refuses to run as root, and neither a user namespace nor the account "
        f"`nobody` can run {program}. Run this as an ordinary user, "
        "or start your own servers and set DATABASE_URL and REDIS_URL."
    )


def _candidates() -> Iterator[Account]:
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
