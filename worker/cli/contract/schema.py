"""The contract with callers, as files: `jobs/contract.json` for programs, `docs/jobs.md` for us.

Both are generated from the payloads and results themselves, and a check fails when they are stale,
so that a change of the contract is seen in review.
"""

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from worker.cli.contract.jobs_page import catalogue_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs import Job

ROOT: Final = Path(__file__).resolve().parents[3]
CONTRACT_FILE: Final = ROOT / "jobs" / "contract.json"
CATALOGUE_FILE: Final = ROOT / "docs" / "jobs.md"


def contract_of(jobs: "Mapping[str, Job]") -> dict[str, Any]:
    """Return the JSON Schema of every kind's payload and result."""
    return {kind: _entry(job) for kind, job in sorted(jobs.items())}


def _entry(job: "Job") -> dict[str, Any]:
    result = job.result_type()
    return {
        "description": inspect.cleandoc(job.description),
        "payload": job.payload.model_json_schema(),
        "result": result.model_json_schema(mode="serialization") if result else None,
    }


def contract_text(contract: dict[str, Any]) -> str:
    """Return the contract as its file holds it."""
    return orjson.dumps(contract, option=orjson.OPT_INDENT_2).decode() + "\n"


def files_of(jobs: "Mapping[str, Job]") -> dict[Path, str]:
    """Return what each generated file should hold."""
    contract = contract_of(jobs)
    return {CONTRACT_FILE: contract_text(contract), CATALOGUE_FILE: catalogue_text(jobs, contract)}
