"""What the tests of the deployment read: compose as Compose reads it, the manifests as objects."""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]
PROGRAMS = Path(sys.executable).parent
MANIFESTS = sorted((PROJECT / "deploy/kubernetes").glob("*.yaml"))
SECONDS = {"s": 1, "m": 60, "h": 3_600}


def run(program, *arguments, **environment):
    """Run a program of the dev environment in the project, with nothing else in its environment."""
    return subprocess.run(
        [PROGRAMS / program, *arguments],
        cwd=PROJECT,
        env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def compose(*arguments, **variables):
    # Not the .env of whoever runs the tests.
    command = ("--env-file", "/dev/null", "--file", "compose.yaml", *arguments)
    return run("docker-compose", *command, **variables)


def compose_config(**variables):
    """Return compose.yaml with everything resolved."""
    shown = compose("config", "--format", "json", POSTGRES_PASSWORD="secret", **variables)
    assert shown.returncode == 0, shown.stderr
    return json.loads(shown.stdout)


def objects():
    """Return every object of every manifest, as plain dicts."""
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def the(kind):
    """Return the one object of a kind."""
    (found,) = [one for one in objects() if one["kind"] == kind]
    return found


def container_of(kind):
    (container,) = the(kind)["spec"]["template"]["spec"]["containers"]
    return container


def seconds(duration):
    """Read Go's notation of a duration: 1m30s."""
    return sum(int(count) * SECONDS[unit] for count, unit in re.findall(r"(\d+)([smh])", duration))


def instructions(name="Dockerfile"):
    """Return a Dockerfile's instructions as (name, arguments), continued lines joined."""
    text = re.sub(r"^#.*\n", "", (PROJECT / name).read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [tuple(line.split(None, 1)) for line in lines if line.strip()]
