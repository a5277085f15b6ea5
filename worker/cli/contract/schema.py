"""The contract with callers: the JSON Schema of every payload and result, from the code itself."""

import inspect
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jobs import Job


def contract_of(jobs: "Mapping[str, Job]") -> dict[str, Any]:
    """Return the JSON Schema of every kind's payload and result.

    A payload's is closed and a result's open, for a result may get more fields.
    """
    return {kind: _entry(job) for kind, job in sorted(jobs.items())}


def _entry(job: "Job") -> dict[str, Any]:
    result = job.result_type()
    return {
        "description": inspect.cleandoc(job.description),
        "payload": job.payload.model_json_schema(),
        "result": _opened(result.model_json_schema(mode="serialization")) if result else None,
    }


def _opened(schema: Any) -> Any:  # noqa: ANN401 - JSON
    """Return a schema that allows more fields than it names, however deep."""
    match schema:
        case list():
            return [_opened(one) for one in schema]
        case dict():
            closed = ("additionalProperties", False)
            return {key: _opened(value) for key, value in schema.items() if (key, value) != closed}
        case _:
            return schema


def contract_text(contract: dict[str, Any]) -> str:
    """Return the contract as `jobs/contract.json` holds it."""
    return orjson.dumps(contract, option=orjson.OPT_INDENT_2).decode() + "\n"
