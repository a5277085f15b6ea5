"""The tutorial's blocks: what it has its reader write, change and run."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).parents[1]
TUTORIAL = PROJECT / "docs" / "tutorial.md"

FILE = re.compile(r"<!-- file: (\S+) -->\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DIFF = re.compile(r"^```diff\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHELL = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def copy_project(target):
    """Copy what git knows of the working tree, and what is new in it."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    for name in filter(None, names):
        if (PROJECT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(PROJECT / name, target / name)


def write_files(project):
    """Write every file that the tutorial shows."""
    for name, content in FILE.findall(TUTORIAL.read_text()):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(content)


def apply_changes(project):
    """Change what the tutorial's diffs change; each hunk has to fit exactly once."""
    for diff in DIFF.findall(TUTORIAL.read_text()):
        [name] = re.findall(r"^\+\+\+ b/(\S+)$", diff, re.MULTILINE)
        text = (project / name).read_text()
        for hunk in re.split(r"^@@$\n", diff, flags=re.MULTILINE)[1:]:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] in " -")
            after = "".join(line[1:] for line in lines if line[0] in " +")
            assert text.count(before) == 1, f"{name}: {before}"
            text = text.replace(before, after)
        (project / name).write_text(text)


def commands():
    """Return the commands that the reader runs, in order, without the path of Python."""
    lines = "".join(SHELL.findall(TUTORIAL.read_text())).splitlines()
    return [shlex.split(line.removeprefix(".venv/bin/python ")) for line in lines]
