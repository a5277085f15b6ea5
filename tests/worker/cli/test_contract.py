"""The contract's files are generated, complete, and fail a check when they are stale."""

import json
import re
from typing import Annotated, ClassVar, Literal

import pytest
from pydantic import Field, model_validator
from typer.testing import CliRunner

from jobs import Payload, Result, job, registry
from tests.letters import SEND_CARD
from worker.__main__ import app
from worker.cli.contract import command
from worker.cli.contract.command import ROOT, generated_files
from worker.cli.contract.jobs_page import example_of, jobs_page
from worker.cli.contract.schema import contract_of

every_kind = pytest.mark.parametrize("kind", registry())


def test_the_files_in_the_project_are_up_to_date():
    for name, text in generated_files().items():
        assert (ROOT / name).read_text(encoding="utf-8") == text, "run `python -m worker contract`"


@every_kind
def test_the_contract_has_the_schema_of_payload_and_result(kind):
    entry = contract_of(registry())[kind]

    assert entry["payload"] == registry()[kind].payload.model_json_schema()
    assert entry["result"]["type"] == "object"


@every_kind
def test_the_page_has_an_example_that_the_kind_takes(kind):
    page = (ROOT / "docs/jobs.md").read_text(encoding="utf-8")
    found = re.search(rf"SELECT enqueue_job\('{kind}', '(.*)'\);", page)

    assert found is not None
    registry()[kind].payload.from_wire(json.loads(found[1]))  # raises if it does not fit


class Odd(Payload):
    """One that only some combinations of fields satisfy."""

    kind: ClassVar[str] = "odd"

    shape: Literal["round", "square"]
    sides: Annotated[int, Field(ge=4, examples=[4])]

    @model_validator(mode="after")
    def _fits(self):
        if self.shape == "round":
            raise ValueError("a round one has no sides")
        return self


class Done(Result):
    """That it is done."""


@job(Odd)
async def odd(ctx, payload) -> Done:
    """Do it."""
    return Done()


def test_an_example_satisfies_the_rules_between_fields():
    assert example_of(Odd) == {"shape": "square", "sides": 4}


def test_a_payload_without_a_valid_example_says_what_to_do():
    class Stubborn(Odd):
        sides: Annotated[int, Field(ge=4)] = 4
        code: Annotated[str, Field(pattern="^x+$")]

    with pytest.raises(ValueError, match="examples="):
        example_of(Stubborn)


def test_the_page_says_what_is_personal():
    jobs = {"send_card": SEND_CARD}
    page = jobs_page(jobs, contract_of(jobs))

    assert "| `name` | string, 0 to 40 | personal: never in a log |" in page


def test_check_fails_when_a_file_is_stale_and_writing_mends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "ROOT", tmp_path)
    run = CliRunner().invoke

    stale = run(app, ["contract", "--check"])
    written = run(app, ["contract"])
    fresh = run(app, ["contract", "--check"])

    assert (stale.exit_code, written.exit_code, fresh.exit_code) == (1, 0, 0)
    assert "run `python -m worker contract`" in stale.output
    for name in ("jobs/contract.json", "docs/jobs.md", "docs/events.md", "docs/metrics.md"):
        assert f"stale {name}" in stale.output
        assert f"wrote {name}" in written.output
