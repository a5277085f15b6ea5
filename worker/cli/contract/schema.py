"""The contract with callers: the JSON Schema of every payload and result, from the code itself."""

import inspect
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs import Job


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
    """Return the contract as `jobs/contract.json` holds it."""
    return orjson.dumps(contract, option=orjson.OPT_INDENT_2).decode() + "\n"
