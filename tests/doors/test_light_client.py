"""`teller-jobs`: the files of jobs/ as a wheel that other services install."""

import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SHIPPED = ("*.py", "_client/*.py", "contract.json", "py.typed")
"""The reports stay here: a client needs their payloads alone."""
NEEDED = "import asyncio, pydantic; pydantic.create_model('Model', field=int)"
HEAVY = ("sqlalchemy", "asyncpg", "alembic", "arq", "redis", "orjson", "worker", "db", "jobs")


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def python(teller_jobs_path, tmp_path_factory):
    """An interpreter that sees the wheel and its dependencies, and nothing of this project."""
    environment = tmp_path_factory.mktemp("clean")
    subprocess.run(
        [sys.executable, "-m", "venv", "--without-pip", environment], check=True, timeout=60
    )
    site = next((environment / "lib").glob("python*")) / "site-packages"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    # What is installed here stands in for what pip would fetch.
    (site / "borrowed.pth").write_text(f"{teller_jobs_path}\n{packages}\n")
    return environment / "bin" / "python"


def run(python, code):
    return subprocess.run(
        [python, "-c", code],
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.strip()


def test_the_wheel_holds_the_files_of_jobs_and_nothing_else(teller_jobs_wheel):
    with zipfile.ZipFile(teller_jobs_wheel) as wheel:
        inside = {name for name in wheel.namelist() if ".dist-info" not in name}
    jobs = PROJECT / "jobs"
    ours = {path.relative_to(jobs) for pattern in SHIPPED for path in jobs.glob(pattern)}

    assert inside == {f"teller_jobs/{path}" for path in ours}


def test_the_wheel_needs_pydantic_and_arq_alone(teller_jobs_wheel):
    with zipfile.ZipFile(teller_jobs_wheel) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("METADATA"))
        metadata = Parser().parsestr(wheel.read(name).decode())
    needs = {
        need.partition(">")[0].partition("<")[0] for need in metadata.get_all("Requires-Dist", [])
    }

    assert needs == {"arq", "pydantic"}


def test_importing_it_is_light(python):
    loaded = run(
        python, f"import teller_jobs, sys; print([m for m in {HEAVY} if m in sys.modules])"
    )

    assert loaded == "[]"


def test_it_finds_its_jobs_under_its_own_name(python):
    kinds = run(python, "import teller_jobs; print(*teller_jobs.registry())").split()

    assert "purge_record" in kinds


def test_importing_it_imports_little_more_than_pydantic(python):
    # What is imported, and not how long that took: a busy machine says nothing about us.
    needed = modules_loaded_by(python, NEEDED)
    extra = modules_loaded_by(python, "import teller_jobs") - needed
    others = {name.partition(".")[0] for name in extra} - {"teller_jobs"}

    assert others <= {"_json", "json", "pkgutil"}


def modules_loaded_by(python, statement):
    return set(run(python, f"import sys; {statement}; print(*sys.modules)").split())
