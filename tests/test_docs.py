"""What the documents say is true: links lead somewhere, commands exist, code is the code."""

import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from unittest.mock import AsyncMock
from uuid import uuid4

import pytest
import redis

import jobs
from worker.__main__ import command_files

PROJECT = Path(__file__).parents[1]
README = PROJECT / "README.md"
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])
COMMAND_TIMEOUT_S = 60

every_document = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[str(path.relative_to(PROJECT)) for path in DOCUMENTS]
)


def blocks(document, language):
    """Return the fenced blocks of one language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL
    )


def shell_lines(document):
    text = "".join(blocks(document, "sh")).replace("\\\n", " ")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@every_document
def test_every_link_leads_somewhere(document):
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text())

    missing = [target for target in targets if not (document.parent / target).exists()]

    assert missing == []


@every_document
def test_every_command_and_make_target_that_is_named_exists(document):
    commands = set(re.findall(r"python -m worker ([a-z]+)", document.read_text()))
    targets = set(re.findall(r"`make ([a-z-]+)", document.read_text()))
    makefile = (PROJECT / "Makefile").read_text()

    assert commands - set(command_files()) == set()
    assert {t for t in targets if not re.search(rf"^{t}:", makefile, re.MULTILINE)} == set()


@pytest.mark.slow
@every_document
def test_every_make_line_is_one_that_make_understands(document):
    for line in shell_lines(document):
        if line.startswith("make "):
            subprocess.run(
                ["make", "-n", *shlex.split(line)[1:]],
                cwd=PROJECT,
                check=True,
                capture_output=True,
                timeout=COMMAND_TIMEOUT_S,
            )


def test_the_job_in_the_readme_is_the_job_in_the_code():
    shown = blocks(README, "python")[0]

    assert shown.strip() in (PROJECT / "jobs/transfer_funds.py").read_text()


async def test_the_examples_of_the_page_on_writing_jobs_run():
    page: dict[str, Any] = {**vars(jobs), "ClassVar": ClassVar, "timedelta": timedelta}
    for example in blocks(PROJECT / "docs/writing-jobs.md", "python"):
        exec(example, page)
    services = SimpleNamespace(post=AsyncMock())

    def context(**facts):
        now = datetime.now(UTC)
        return jobs.Context(uuid4(), 1, now, store=None, services=services, **facts)  # type: ignore[arg-type]

    paying, telling = context(), context()
    await page["pay_order"](paying, page["PayOrder"](order=7))
    await page["announce"](telling, page["Announce"](text="hello"))

    assert [one.request.key for one in paying.follow_ups] == ["order-7"]
    assert await page["count_to"](context(), page["CountTo"](number=150)) == jobs.Continue(100)
    assert await page["count_to"](context(cursor=100), page["CountTo"](number=150)) is None
    services.post.assert_awaited_once_with("hello", idempotency_key=str(telling.job_id))
    assert page["POLICY"].retry.final == (PermissionError,)


LIMIT_ROW = re.compile(
    r"^\| [^|]+ \| ([\d,]+) ?([a-z]*)[^|]*\| `([\w.]+):(\w+)` \| [^|]+ \|$", re.MULTILINE
)
SPANS = {
    "s": "seconds",
    "ms": "milliseconds",
    "minutes": "minutes",
    "day": "days",
    "days": "days",
    "hours": "hours",
}


def test_every_limit_on_the_page_of_limits_is_the_one_in_the_code():
    page = (PROJECT / "docs/limits.md").read_text()
    rows = LIMIT_ROW.findall(page)

    assert len(rows) == len(re.findall(r"`[\w.]+:[A-Z_]+`", page))
    for value, unit, module, name in rows:
        limit = getattr(import_module(module), name)
        shown = int(value.replace(",", ""))
        assert limit == (
            timedelta(**{SPANS[unit]: shown}) if isinstance(limit, timedelta) else shown
        )


def test_every_option_of_a_job_is_on_the_page_of_limits():
    page = (PROJECT / "docs/limits.md").read_text()
    options = {field.name for field in fields(jobs.Policy)}

    assert {option for option in options if f"`{option}=" not in page} == set()


def test_the_version_has_its_place_in_the_changelog():
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.+?)\]", (PROJECT / "CHANGELOG.md").read_text(), re.MULTILINE)

    assert headings[0] == "Unreleased"
    assert version in headings or headings == ["Unreleased"]


@pytest.fixture
def environment(servers, new_database_url, tmp_path):
    with redis.Redis.from_url(servers[1]) as client:
        client.flushdb()
    return {
        **os.environ,
        "DATABASE_URL": new_database_url,
        "REDIS_URL": servers[1],
        "TELLER_REPORTS_URL": (tmp_path / "reports").as_uri(),
        "TELLER_HEALTH_PORT": "0",
    }


def test_the_readme_s_session_works_as_it_stands(environment):
    """The commands after `worker dev`, in order, against a worker that runs."""
    lines = [
        line
        for line in shell_lines(README)
        if line.startswith(".venv/bin/python -m worker") and not line.endswith(" dev")
    ]
    worker = subprocess.Popen([sys.executable, "-m", "worker", "run"], cwd=PROJECT, env=environment)
    try:
        for line in lines:
            command = [sys.executable, *shlex.split(line)[1:]]
            done = subprocess.run(
                command,
                cwd=PROJECT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    finally:
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(COMMAND_TIMEOUT_S) == 0
    assert len(lines) >= 4


@pytest.mark.slow
@pytest.mark.parametrize("page", ["runbook.md", "updating.md"])
def test_the_commands_of_a_page_run(page, environment):
    enqueue = [*(sys.executable, "-m", "worker", "enqueue"), "purge_record", "{}"]
    job_id = ""
    lines = [line for line in shell_lines(PROJECT / "docs" / page) if line.startswith("python -m")]

    for line in lines:
        if "ID" in line.split():
            job_id = _run(enqueue, environment).stdout.split()[0]
        words = [job_id if word == "ID" else word for word in shlex.split(line)[1:]]
        _run([sys.executable, *words], environment)

    assert lines


def _run(command, environment):
    done = subprocess.run(
        command,
        cwd=PROJECT,
        env=environment,
        input="y\n",
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done
