"""What callers from outside have: our wheel, Node, and the URLs of two servers."""

import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NODE = Path(__file__).parent / "node"
INSTALL_S = 300


@pytest.fixture(scope="session")
def teller_jobs_wheel(tmp_path_factory):
    """The client distribution, built from jobs/ by its own build backend, offline."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "jobs", source, ignore=ignored)  # the build leaves the tree alone
    build = f"import hatchling.build; print(hatchling.build.build_wheel({str(directory)!r}))"
    built = subprocess.run(
        [sys.executable, "-c", build],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return directory / built.stdout.split()[-1]


@pytest.fixture(scope="session")
def teller_jobs_path(teller_jobs_wheel, tmp_path_factory):
    """A directory that holds the wheel's files, as an environment would."""
    directory = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(teller_jobs_wheel) as wheel:
        wheel.extractall(directory)
    return directory


@pytest.fixture
def teller_jobs(teller_jobs_path, monkeypatch):
    """The wheel's package, in this process, for as long as the test."""
    monkeypatch.syspath_prepend(teller_jobs_path)
    yield importlib.import_module("teller_jobs")
    for name in [name for name in sys.modules if name.partition(".")[0] == "teller_jobs"]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def node():
    """Run a script in Node, with the packages of tests/doors/node.

    They are installed once per version into a cache. Without Node, or on a machine that has
    neither the cache nor the network, the test is skipped: CI has both (TELLER_REQUIRE_NODE=1).
    """
    required = os.environ.get("TELLER_REQUIRE_NODE") == "1"
    try:
        modules = _installed()
    except (OSError, subprocess.SubprocessError) as error:
        if required:
            raise
        pytest.skip(f"needs Node with pg and redis: {error}")

    def run(script, **environment):
        # Beside node_modules, since that is where Node looks for packages.
        path = modules.parent / f"script-{os.getpid()}.mjs"
        path.write_text(script, encoding="utf-8")
        try:
            ran = subprocess.run(
                ["node", path],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
        finally:
            path.unlink()
        assert ran.returncode == 0, ran.stderr
        return ran.stdout.strip()

    return run


def _installed():
    wanted = (NODE / "package.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "teller-doors-node"
    modules, mark = cache / "node_modules", cache / "package.json"
    if modules.is_dir() and mark.is_file() and mark.read_bytes() == wanted:
        return modules
    fresh = cache.with_name(f"{cache.name}-{os.getpid()}")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    (fresh / "package.json").write_bytes(wanted)
    try:
        subprocess.run(
            ["npm", "install", "--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=fresh,
            check=True,
            capture_output=True,
            timeout=INSTALL_S,
        )
        shutil.rmtree(cache, ignore_errors=True)
        fresh.rename(cache)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return modules
