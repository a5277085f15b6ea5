"""The recipes are jobs that run: each file block is put where jobs are, and its job completes."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import jobs
from worker.dev.pytest_plugin import (  # noqa: F401 - fixtures
    teller_database_url,
    teller_databases,
    teller_services,
    workbench,
)

PAGE = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
FILES = dict(
    re.findall(r"<!-- file: (\w+)\.py -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
)
EXAMPLES = {
    "rebuild_index": {"shop": "books"},
    "print_catalogue": {"year": 2026},
    "charge_card": {"order": "42"},
    "clean_up": {"rows": 2_500},
    "call_provider": {"customer": "ada"},
}


@pytest.fixture
def recipes(tmp_path):
    """Put the recipes among the jobs, as files of theirs."""
    for name, content in FILES.items():
        (tmp_path / f"{name}.py").write_text(content)
    jobs.__path__.append(str(tmp_path))
    jobs.registry.cache_clear()
    yield {name: getattr(import_module(f"jobs.{name}"), name) for name in FILES}
    jobs.__path__.remove(str(tmp_path))
    jobs.registry.cache_clear()


@pytest.mark.parametrize("name", FILES)
async def test_a_recipe_s_job_completes(recipes, workbench, name):  # noqa: F811 - a fixture
    payload = recipes[name].payload.from_wire(EXAMPLES[name])
    async with workbench.engine.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO job_kinds (kind, payload_schema) VALUES ($1, '{}')", (payload.kind,)
        )

    await workbench.client.enqueue(payload)

    assert (await workbench.run_due())[-1].state == "completed"


def test_every_recipe_has_an_example():
    assert EXAMPLES.keys() == FILES.keys()
