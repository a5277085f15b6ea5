"""`.env.example` names every setting, with its default and what it is for."""

import re
from itertools import pairwise

import pytest
from dotenv import dotenv_values
from pydantic_core import PydanticUndefined

from tests.deploy.kit import PROJECT
from worker.settings import Settings

EXAMPLE = PROJECT / ".env.example"
ASSIGNMENT = re.compile(r"^# ([A-Z][A-Z0-9_]*)=(.*)$", re.MULTILINE)
SHOWN = dict(ASSIGNMENT.findall(EXAMPLE.read_text()))
PREFIX = Settings.model_config["env_prefix"]
NAMES = {
    str(field.validation_alias or f"{PREFIX}{name}".upper()): field
    for name, field in Settings.model_fields.items()
}


def test_it_names_every_setting():
    assert NAMES.keys() - SHOWN.keys() == set()


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_is_shown_with_its_default(name):
    default = NAMES[name].default

    assert default in (PydanticUndefined, None) or SHOWN[name] == str(default)


def test_every_setting_is_explained():
    lines = EXAMPLE.read_text().splitlines()
    before = {
        name: line
        for line, following in pairwise(lines)
        for name, _ in ASSIGNMENT.findall(following)
    }

    silent = {n for n in NAMES if not before[n].startswith("# ") or ASSIGNMENT.match(before[n])}
    assert silent == set()


def test_what_it_names_exists():
    sources = [*(PROJECT / "worker").rglob("*.py"), PROJECT / "compose.yaml"]
    text = "".join(path.read_text() for path in sources)

    assert {name for name in SHOWN.keys() - NAMES.keys() if name not in text} == set()


def test_copied_as_it_is_it_changes_nothing():
    assert dotenv_values(EXAMPLE) == {}


def test_with_its_examples_taken_the_settings_hold_together(tmp_path):
    taken = tmp_path / ".env"
    taken.write_text(ASSIGNMENT.sub(r"\1=\2", EXAMPLE.read_text()))

    assert Settings(_env_file=taken).drain_grace_s == NAMES["TELLER_DRAIN_GRACE_S"].default
